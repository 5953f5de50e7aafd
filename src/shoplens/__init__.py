"""Shoplens: image classification that a shop runs itself."""

__version__ = "0.1.0"
