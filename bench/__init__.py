"""Measurements. `make bench` runs them; results with machine and commit are in `results.md`."""
