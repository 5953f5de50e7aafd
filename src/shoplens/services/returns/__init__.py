"""Returned goods: bring photos in, work through them at night, look at the results, correct them."""
