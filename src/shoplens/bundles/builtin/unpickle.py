"""Read the tensors of a legacy torch file with numpy alone: bytes in, arrays by name out; all other content refused.

The file is five pickles (magic number, protocol, system facts, the state dictionary, the storage keys) and then the
storages in the order of the keys, each an element count of eight bytes and the raw little-endian values.
Only the four names that a state dictionary of plain tensors needs can be unpickled, so the file cannot run code.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.errors import BundleInvalid

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_DTYPES: Final = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

Storages = dict[str, NDArray[Any]]


def read_state(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """The tensors of the state dictionary in `file`; read-only views that share memory where the file does.

    Raises BundleInvalid for anything that is not a state dictionary of plain float or long tensors.
    """
    try:
        return _read_state(file)
    except BundleInvalid:
        raise
    except Exception as error:
        raise BundleInvalid(f"The weights file cannot be read: {error}.") from error


def _read_state(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if _Restricted(file, {}).load() != _MAGIC or _Restricted(file, {}).load() != _PROTOCOL:
        raise BundleInvalid("The weights file is not a legacy torch file.")
    _Restricted(file, {}).load()
    storages: Storages = {}
    state = _Restricted(file, storages).load()
    for key in _Restricted(file, {}).load():
        _fill(storages[key], file)
    return {name: _Tensor.view(tensor) for name, tensor in state.items()}


def _fill(storage: NDArray[Any], file: BinaryIO) -> None:
    """Read one storage from `file` into the array that the tensors already refer to."""
    count = int.from_bytes(file.read(8), "little")
    data = file.read(storage.nbytes)
    if count != storage.size or len(data) != storage.nbytes:
        raise BundleInvalid("The weights file is truncated or contradicts itself.")
    storage[:] = np.frombuffer(data, storage.dtype)


class _Tensor:
    """What stands for a tensor until the storages have been read."""

    def __init__(self, storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if offset < 0 or last >= storage.size or min((*shape, 1)) < 1 or min((*strides, 0)) < 0:
            raise BundleInvalid("A tensor of the weights file lies outside its storage.")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def view(self) -> NDArray[Any]:
        """The array itself, read-only."""
        step = self.storage.itemsize
        strides = tuple(stride * step for stride in self.strides)
        array = np.ndarray(self.shape, self.storage.dtype, self.storage, self.offset * step, strides)
        array.flags.writeable = False
        return array


def _rebuild_tensor(
    storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


class _Restricted(pickle.Unpickler):
    """An unpickler that knows four names and refuses every other."""

    def __init__(self, file: BinaryIO, storages: Storages) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for an allowed name. Raises BundleInvalid for any other."""
        allowed: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch", "FloatStorage"): _DTYPES["FloatStorage"],
            ("torch", "LongStorage"): _DTYPES["LongStorage"],
        }
        if (module, name) not in allowed:
            raise BundleInvalid(f"The weights file asks for {module}.{name}, which is not allowed.")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """The storage that `pid` names, allocated at its first mention."""
        kind, dtype, key, _device, count = pid[:5]
        if kind != "storage" or not isinstance(dtype, np.dtype) or not 0 <= count <= 1 << 27:
            raise BundleInvalid("The weights file has a storage of an unknown kind.")
        if key not in self._storages:
            self._storages[key] = np.zeros(count, dtype)
        return self._storages[key]
