"""What can go wrong with a sample that a request only names."""

from __future__ import annotations

from shoplens.errors import SampleError


class PhotoNotFetched(SampleError):
    """The photo at an address is not allowed to be fetched, or could not be."""

    code = "photo_not_fetched"
