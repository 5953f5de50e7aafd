"""How the pixels of an imported model are prepared: presets, and what lies beside a file from Hugging Face.

Its `preprocessor_config.json` has the steps of the image processors of `transformers`: resize, centre crop, multiply by
`rescale_factor`, subtract the mean, divide by the deviation. Its `config.json` has the names of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic_core import from_json

from shoplens.errors import BundleIncomplete, BundleInvalid

Triple = tuple[float, float, float]
Preset = Literal["imagenet", "half", "efficientnet-lite", "unit", "raw"]

PRESETS: Final[dict[str, tuple[Triple, Triple]]] = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "half": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "efficientnet-lite": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "raw": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and scale by name: the default of torchvision and timm, mean and deviation 0.5 (-1 to 1), (x - 127) / 128,
0 to 1, and unchanged pixels."""

CONFIG: Final = "config.json"
PROCESSOR: Final = "preprocessor_config.json"

_BYTE: Final = 255.0
_MAX_BYTES: Final = 1_000_000
_LEAST: Final = 1e-4
"""Factors and shares below this, or above its inverse, are mistakes."""
_INTERPOLATIONS: Final[dict[str, Literal["bilinear", "bicubic"]]] = {"2": "bilinear", "3": "bicubic"}
_OTHER_STEPS: Final = ("EfficientNet", "Levit", "PoolFormer")
"""Image processors that resize or normalise in another way."""
_SQUASHED_FROM: Final = 384
"""From this size on the processor of ConvNeXT resizes to a square and crops nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The preprocessing, which is not part of a graph. Defaults of None: `crop` from the graph or 224, `resize` 8/7 of
    the crop, `mean` and `scale` of the preset.
    """

    preset: Preset = "imagenet"
    mean: Triple | None = None
    scale: Triple | None = None
    crop: int | None = None
    resize: int | None = None
    fit: Literal["short_side", "squash"] = "short_side"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    colour: Literal["rgb", "bgr"] = "rgb"


def model_file(path: Path) -> Path:
    """`path`, or the ONNX file in the folder `path`. Raises BundleIncomplete if there is none of a usual name."""
    if not path.is_dir():
        return path
    for candidate in (path / "model.onnx", path / "onnx" / "model.onnx"):
        if candidate.is_file():
            return candidate
    raise BundleIncomplete(f"{path} has neither model.onnx nor onnx/model.onnx. Name the file.")


def beside(file: Path, name: str) -> Path | None:
    """The file `name` beside `file`, or above a folder called `onnx`, as Hugging Face lays them out."""
    folders = [file.parent, *([file.absolute().parent.parent] if file.absolute().parent.name == "onnx" else [])]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def preprocessing_beside(file: Path) -> Preprocessing | None:
    """What `preprocessor_config.json` beside `file` says; None without one. Raises BundleInvalid."""
    path = beside(file, PROCESSOR)
    if path is None:
        return None
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BundleInvalid(f"{path} is too large for a configuration.")
        config = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleInvalid(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise BundleInvalid(f"{path} is not a JSON object.")
    return preprocessing_of(config)


def preprocessing_of(config: dict[str, Any]) -> Preprocessing:
    """The preprocessing that an image processor does. Raises BundleInvalid for steps that Shoplens does not have."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    if kind.startswith(_OTHER_STEPS):
        raise BundleInvalid(
            f"{PROCESSOR}: {kind} has steps of its own. Move the file away and pass --preset, --crop and --resize."
        )
    interpolation = _INTERPOLATIONS.get(str(config.get("resample", 2)))
    if interpolation is None:
        raise BundleInvalid(
            f"{PROCESSOR}: resample is {config['resample']}; Shoplens has 2 (bilinear) and 3 (bicubic)."
        )
    resize, crop, fit = _sizes(config, kind)
    # Old configurations say nothing of rescaling; they normalise pixels from 0 to 1.
    factor = _positive(config, "rescale_factor", 1 / _BYTE) if config.get("do_rescale", True) else 1.0
    mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", "image_mean" in config):
        mean, deviation = _three(config, "image_mean"), _three(config, "image_std")
    return Preprocessing(
        mean=(mean[0] / factor, mean[1] / factor, mean[2] / factor),
        scale=(deviation[0] / factor, deviation[1] / factor, deviation[2] / factor),
        resize=resize,
        crop=crop,
        fit=fit,
        interpolation=interpolation,
        colour="bgr" if config.get("do_flip_channel_order") else "rgb",
    )


def _sizes(config: dict[str, Any], kind: str) -> tuple[int, int, Literal["short_side", "squash"]]:
    """The pixels to resize to, the side of the crop, and how to resize."""
    size = config.get("size", 224)
    crop = _side(config["crop_size"]) if config.get("do_center_crop") and config.get("crop_size") else None
    if isinstance(size, dict) and "shortest_edge" not in size:
        resize = _side(size)
        return resize, crop or resize, "squash"
    short = _pixels(size["shortest_edge"] if isinstance(size, dict) else size)
    if "crop_pct" in config or kind.startswith("ConvNext"):
        if short >= _SQUASHED_FROM:
            return short, short, "squash"
        return int(short / _positive(config, "crop_pct", 224 / 256)), short, "short_side"
    if not isinstance(size, dict) and crop is None:
        return short, short, "squash"  # a single number means a square, except where a crop follows
    return short, crop or short, "short_side"


def _side(size: Any) -> int:
    """The side of a square that is given as a number or as height and width."""
    if not isinstance(size, dict):
        return _pixels(size)
    sides = {_pixels(size.get(name)) for name in ("height", "width")}
    if len(sides) != 1:
        raise BundleInvalid(f"{PROCESSOR}: the size {size} is no square; only squares are supported.")
    return sides.pop()


def _pixels(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
        raise BundleInvalid(f"{PROCESSOR}: the size {value!r} is not a number of pixels.")
    return value


def _positive(config: dict[str, Any], name: str, default: float) -> float:
    value = default if config.get(name) is None else config[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _LEAST <= value <= 1 / _LEAST:
        raise BundleInvalid(
            f"{PROCESSOR}: {name} is {value!r}; it must be a number between {_LEAST:g} and {1 / _LEAST:g}."
        )
    return float(value)


def _three(config: dict[str, Any], name: str) -> tuple[float, float, float]:
    values = config.get(name) or ()
    try:
        first, second, third = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise BundleInvalid(f"{PROCESSOR}: {name} must have three numbers.") from error
    if not all(abs(value) <= 1 / _LEAST for value in (first, second, third)):
        raise BundleInvalid(f"{PROCESSOR}: {name} is {values}; its numbers must not exceed {1 / _LEAST:g}.")
    return first, second, third
