"""Classify one sample, and keep its record and the feedback on it."""
