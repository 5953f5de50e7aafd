"""Drift: whether a day of a channel differs from the days before it."""
