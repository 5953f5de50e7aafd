"""Models as verified directories: open, verify, pack, import, publish, and the built-in ones.

Import from the modules, which keeps light what needs only a value: `from shoplens.bundles.bundle import open_bundle`.
"""
