"""Build everything once from the settings: the only place that picks implementations."""
