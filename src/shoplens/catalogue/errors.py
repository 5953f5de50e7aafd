"""What can go wrong in the catalogue."""

from __future__ import annotations

from shoplens.errors import Conflict, NotFound, RequestInvalid


class TreeInvalid(RequestInvalid):
    """A tree of categories that contradicts itself or cannot be read; the sentence names the line."""

    code = "tree_invalid"


class TreeNotFound(NotFound):
    """The channel has no tree of this version."""

    code = "tree_not_found"


class CategoryNotFound(NotFound):
    """The channel's tree has no such category."""

    code = "category_not_found"


class TreeChanged(Conflict):
    """Another import changed the tree meanwhile, or the tree would leave products without a category."""

    code = "tree_changed"


class NoCatalogue(NotFound):
    """The channel does not exist or has no catalogue side."""

    code = "no_catalogue"


class NothingToCategorise(RequestInvalid):
    """A product without a text and without a photo."""

    code = "nothing_to_categorise"
