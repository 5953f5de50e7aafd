"""Imports of products from tables, with their photos: jobs, what they could not use, and the pages."""
