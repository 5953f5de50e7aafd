"""What can be wrong with an endpoint or a delivery."""

from __future__ import annotations

from shoplens.errors import NotFound, RequestInvalid


class EndpointInvalid(RequestInvalid):
    """The address, the events or the secret of a webhook endpoint cannot be used."""

    code = "endpoint_invalid"


class EndpointNotFound(NotFound):
    """No webhook endpoint has this id."""

    code = "endpoint_not_found"


class DeliveryNotFound(NotFound):
    """No webhook delivery with this id can be sent again."""

    code = "delivery_not_found"
