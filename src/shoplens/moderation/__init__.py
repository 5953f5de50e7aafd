"""Shopper photos: hidden until decided, decided by a policy or a person, with statement and appeal."""
