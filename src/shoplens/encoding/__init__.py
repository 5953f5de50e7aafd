"""Samples to tensors: Picture and ImageSpec in, one sample's array out. The same code in training and in serving."""

from shoplens.encoding.image import arrange, encode
from shoplens.encoding.spec import ImageSpec

__all__ = ["ImageSpec", "arrange", "encode"]
