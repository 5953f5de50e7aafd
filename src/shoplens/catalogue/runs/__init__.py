"""Runs over the catalogue: a suggestion for every product that has none."""
