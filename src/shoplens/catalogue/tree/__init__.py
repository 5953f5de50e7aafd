"""The tree of categories: its versions, mappings between them, and the files that it is read from."""
