"""Bytes to an upright sRGB picture within limits, and a picture to the array that a model wants.

Import from the modules, which keeps light what needs only a value: `from shoplens.images.decoder import decode`.
"""
