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


class ProductNotFound(NotFound):
    """The channel has no product with this id or reference."""

    code = "product_not_found"


class ProductChanged(Conflict):
    """Somebody else decided on the product, or it got another suggestion, since it was shown."""

    code = "product_changed"


class SuggestionOutdated(Conflict):
    """The suggestion that was to be accepted names a category that the live tree does not have any more."""

    code = "suggestion_outdated"


class DecisionNotLast(Conflict):
    """The decision was undone, or another one was made on the product after it."""

    code = "decision_not_last"


class BulkNotFound(NotFound):
    """No bulk acceptance has this id."""

    code = "bulk_not_found"


class BulkRunning(Conflict):
    """Another bulk acceptance of the channel is at work."""

    code = "bulk_running"


class ImportInvalid(RequestInvalid):
    """A file that is no table of products; the sentence says what is missing."""

    code = "import_invalid"


class ImportNotFound(NotFound):
    """No import has this id."""

    code = "import_not_found"


class ImportRunning(Conflict):
    """Another process imports the same file now."""

    code = "import_running"


class RunModelChanged(Conflict):
    """A run is to go on, and the version of the model with which it began does not answer any more."""

    code = "run_model_changed"
