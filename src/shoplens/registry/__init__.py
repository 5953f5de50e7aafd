"""The models that there are: list, show, install, publish."""
