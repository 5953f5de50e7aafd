"""Products, the tree of categories, and suggestions: the job Catalogue."""
