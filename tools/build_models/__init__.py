"""Make the files from which the built-in models are built. Run these only when a model changes on purpose.

ship      train `clothing` and `fashion-mnist`, write their files
quantise  record how EfficientNet-Lite0 is rounded to int8
probes    record the answers that every installation compares its models with
"""

from typing import Final

from tools.project import ROOT

DATA: Final = ROOT / "src" / "shoplens" / "bundles" / "builtin" / "data"
