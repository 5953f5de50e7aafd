"""Classify on a Ray cluster: photos by key in, one outcome per photo out. Ray is imported where it is used only."""
