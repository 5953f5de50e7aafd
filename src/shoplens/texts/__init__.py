"""Texts of samples: cleaned for storage and display, and turned into the features that a model reads."""
