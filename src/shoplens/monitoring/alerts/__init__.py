"""Alerts without Prometheus: the same conditions, over what the server knows, and who is told."""
