"""Exports of products: what stands in each format."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from arro3.io import read_parquet

from shoplens.catalogue.export import COLUMNS, ExportProducts, ProductFormat
from shoplens.catalogue.products import NewProduct
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database
from tests.unit.catalogue.products import ANNA, CHANNEL, add, decision_service, jpeg_of, product_service, suggested


def test_every_format_has_every_product_in_order(database: Database, tmp_path: Path) -> None:
    """More than a page of them; types and paths are kept in Parquet."""
    products = product_service(database, tmp_path / "blobs")
    products.save_many(CHANNEL, [NewProduct(reference=f"A-{number}", designation="Pear") for number in range(250)])
    photo = products.photo("image_7_product_B-1.jpg", jpeg_of(40, 30))
    products.save(CHANNEL, NewProduct(reference="B-1", designation="=Apple", photos=(photo,)))
    decided = suggested(database, add(products, "B-1", "=Apple"), "apple", 0.9)
    decision_service(database).decide(CHANNEL, decided.id, by=ANNA)
    export = ExportProducts(products, paths_of=lambda _: lambda category: f"path of {category}")
    made = {kind: b"".join(export(ProductFilter(channel=CHANNEL), kind)) for kind in ProductFormat}
    rows = list(csv.DictReader(io.StringIO(made[ProductFormat.CSV].decode())))
    assert (251, "A-0", "B-1") == (len(rows), rows[0]["reference"], rows[-1]["reference"])
    assert ("'=Apple", "apple", "path of apple", "apple:0.9000", "anna", "image_7_product_B-1.jpg") == tuple(
        rows[-1][name] for name in ("designation", "category", "category_path", "suggestions", "decided_by", "photos")
    )
    file = tmp_path / "products.parquet"
    file.write_bytes(made[ProductFormat.PARQUET])
    table = read_parquet(file).read_all()
    assert COLUMNS == tuple(table.schema.names)
    last = {name: table.column(name).to_pylist()[-1] for name in COLUMNS}
    assert (251, "=Apple", 0.9, 1, False) == (
        table.num_rows, last["designation"], last["score"], last["tree"], last["needs_review"],
    )  # fmt: skip
    assert last["decided_at"] is not None
    x, y = (list(csv.reader(io.StringIO(made[kind].decode()))) for kind in (ProductFormat.X, ProductFormat.Y))
    assert (["250", "'=Apple", "", "B-1", "7"], ["250", "apple"]) == (x[-1], y[-1])
