"""Classify many samples of a channel, each exactly once."""
