"""What can be wrong with a request about alerts."""

from __future__ import annotations

from shoplens.errors import NotFound


class AlertNotFound(NotFound):
    """No alert has this name, or it is not silenced."""

    code = "alert_not_found"
