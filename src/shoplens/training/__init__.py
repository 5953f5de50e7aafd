"""Offline: labelled photos in, verified bundles out. Only `networks`, `fit` and what uses them need torch."""
