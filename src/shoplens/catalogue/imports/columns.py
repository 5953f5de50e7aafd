"""Which column of a table is what: guessed from the names that shop systems give, or as a user says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shoplens.advice import meant
from shoplens.catalogue.errors import ImportInvalid

FIELDS: Final = ("reference", "designation", "description", "category", "photos")
_NAMES: Final = {
    "reference": (
        "reference", "ref", "sku", "productid", "articleid", "articlenumber", "artikelnummer", "itemnumber", "itemid",
        "handle", "code", "gtin", "ean", "id",
    ),
    "designation": (
        "designation", "title", "name", "productname", "producttitle", "titel", "bezeichnung", "artikelname", "libelle",
        "titre", "nom", "nombre", "titulo", "nome", "titolo",
    ),
    "description": (
        "description", "desc", "bodyhtml", "body", "longdescription", "productdescription", "text", "beschreibung",
        "descriptif", "descripcion", "descrizione",
    ),
    "category": (
        "category", "prdtypecode", "categoryid", "categorypath", "productcategory", "googleproductcategory",
        "producttype", "kategorie", "categorie", "categoria", "path",
    ),
    "photos": (
        "photos", "photo", "images", "image", "imageurl", "imageurls", "imagelink", "imagesrc", "imagekey", "picture",
        "pictures", "bild", "bilder", "foto", "fotos", "key", "url",
    ),
}  # fmt: skip
_CHALLENGE: Final = frozenset({"designation", "description", "productid", "imageid"})
_NOT_LETTERS: Final = re.compile(r"[\W_]+")
_SEPARATED: Final = re.compile(r"\s*[|\n]\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The column of each field, None where there is none; photos may be in several.

    `index` and `image` are those of the format of the Rakuten challenge: the number of a row, by which a second file
    gives its category, and the number in the name of its photo.
    """

    reference: str
    designation: str | None = None
    description: str | None = None
    category: str | None = None
    photos: tuple[str, ...] = ()
    index: str | None = None
    image: str | None = None

    def photos_of(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The names, keys or addresses of a row's photos, in order; those in one field have | between them."""
        if self.image is not None:
            image, product = values.get(self.image, "").strip(), values.get(self.reference, "").strip()
            return (f"image_{image}_product_{product}.jpg",) if image and product else ()
        fields = (values.get(column, "") for column in self.photos)
        return tuple(name.strip() for field in fields for name in _SEPARATED.split(field) if name.strip())


def columns_of(header: Sequence[str], chosen: Mapping[str, str] | None = None) -> Columns:
    """The columns of a table with this header. `chosen` names the column of a field, in place of a guess.

    Raises ImportInvalid for a field or a column that there is not, and where no column can be the reference, or none a
    text or a photo.
    """
    chosen = chosen or {}
    for field, column in chosen.items():
        if field not in FIELDS:
            raise ImportInvalid(f"There is no field {field!r}{meant(field, FIELDS)}. The fields: {', '.join(FIELDS)}.")
        if column not in header:
            raise ImportInvalid(f"The table has no column {column!r}{meant(column, header)}.")
    if not chosen and {name.casefold() for name in header} >= _CHALLENGE:
        return _challenge(header)
    found = {field: chosen.get(field) or _guess(field, header, set(chosen.values())) for field in FIELDS}
    if found["reference"] is None:
        raise ImportInvalid(
            "No column looks like the reference of a product, such as `reference` or `sku`. Name it: reference=COLUMN."
        )
    if not (found["designation"] or found["description"] or found["photos"]):
        raise ImportInvalid(
            "No column looks like a title, a description or a photo. Name one: designation=COLUMN, description=COLUMN "
            f"or photos=COLUMN. The table has: {', '.join(header)[:300]}."
        )
    photos: tuple[str, ...] = (found["photos"],) if found["photos"] else ()
    if found["photos"] and "photos" not in chosen:
        stem = _plain(found["photos"]).rstrip("0123456789")
        free = (name for name in header if name not in chosen.values())
        photos = tuple(name for name in free if _plain(name).rstrip("0123456789") == stem)
    return Columns(
        reference=found["reference"],
        designation=found["designation"],
        description=found["description"],
        category=found["category"],
        photos=photos,
    )


def _challenge(header: Sequence[str]) -> Columns:
    by_name = {name.casefold(): name for name in header}
    return Columns(
        reference=by_name["productid"],
        designation=by_name["designation"],
        description=by_name["description"],
        category=by_name.get("prdtypecode"),
        index=header[0],
        image=by_name["imageid"],
    )


def _guess(field: str, header: Sequence[str], taken: set[str]) -> str | None:
    """The first column with the best name for a field."""
    free = [name for name in header if name not in taken]
    plain = {_plain(name): name for name in reversed(free)}
    numbered = {_plain(name).rstrip("0123456789"): name for name in reversed(free)} if field == "photos" else {}
    known = {**numbered, **plain}
    return next((known[name] for name in _NAMES[field] if name in known), None)


def _plain(name: str) -> str:
    return _NOT_LETTERS.sub("", name.casefold())
