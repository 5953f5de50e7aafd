"""The reasons for which people refuse a photo: data that each shop can replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shoplens.errors import RequestInvalid
from shoplens.messages import marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`code` is stable and kept with the decision, `sentence` is what the shopper reads.

    `label` is what a model that learns from decisions should have said; None where it teaches nothing.
    """

    code: str
    sentence: str
    label: str | None = None

    @property
    def title(self) -> str:
        """The code for people: `not_the_product` is "Not the product"."""
        return self.code.replace("_", " ").capitalize()


DEFAULT_REASONS: Final = (
    Reason(code="nudity", sentence=marked("The photo shows nudity or is sexual."), label="nsfw"),
    Reason(code="violence", sentence=marked("The photo shows violence, weapons or injuries."), label="violence"),
    Reason(code="hate", sentence=marked("The photo shows hateful symbols or gestures."), label="hate"),
    Reason(
        code="personal_data", sentence=marked("The photo shows a person or personal details without their consent.")
    ),
    Reason(code="not_the_product", sentence=marked("The photo does not show the product."), label="not_the_product"),
    Reason(code="advertising", sentence=marked("The photo advertises another product or shop.")),
    Reason(code="copyright", sentence=marked("The photo belongs to somebody else.")),
    Reason(code="unusable", sentence=marked("The photo is too dark, too blurred or too small to help other shoppers.")),
    Reason(code="other", sentence=marked("The photo does not follow our rules for reviews.")),
)
"""Nine, so that each has a digit as its key."""


def find_reason(reasons: Sequence[Reason], code: str | None) -> Reason:
    """The reason with this code. Raises RequestInvalid."""
    found = next((reason for reason in reasons if reason.code == code), None)
    if found is None:
        known = ", ".join(reason.code for reason in reasons)
        what = marked("A refusal needs a reason") if code is None else marked(f"There is no reason {code[:80]!r}")
        raise RequestInvalid(f"{what}. The shop's reasons: {known}.")
    return found
