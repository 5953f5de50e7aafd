"""Read the weights that come in pinned Python packages, without torch.

A legacy torch file is five pickles (magic number, protocol, system information, the state dictionary, the storage
keys), followed by the storages in the order of the keys: an element count of eight bytes, then little-endian values.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTampered

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
