"""The isolated decoder process: reads requests from its standard input, answers with raw pixels. Run with -m.

It decodes formats whose native libraries are too complex to be trusted with a stranger's file inside the server.
It limits itself: memory beyond what it has after starting, CPU seconds per picture, no file writes, no core dumps.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Final

from PIL import AvifImagePlugin

from shoplens.errors import ImageCorrupt, ImageDecoderFailed, ImageTooManyPixels, ImageTooSmall, SampleError
from shoplens.images import raster
from shoplens.images.heif import HeicSupport, heic_support
from shoplens.images.picture import Limits, Picture
from shoplens.images.sandbox_protocol import FORMATS, REPLY, REQUEST, Status

_STATUSES: Final[dict[type[SampleError], Status]] = {
    ImageCorrupt: Status.CORRUPT,
    ImageTooManyPixels: Status.TOO_MANY_PIXELS,
    ImageTooSmall: Status.TOO_SMALL,
    ImageDecoderFailed: Status.OUT_OF_MEMORY,
}
_HEIC_STATUSES: Final = {HeicSupport.MISSING: Status.EXTRA_MISSING, HeicSupport.UNSAFE: Status.EXTRA_UNSAFE}


def main(memory_bytes: int, cpu_s: float) -> None:
    """Serve until the other end of the socket on standard input is closed."""
    owner = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    _limit_process(memory_bytes)
    with owner, owner.makefile("rb") as requests:
        while header := requests.read(REQUEST.size):
            _limit_cpu(cpu_s)
            form, max_pixels, short_side, length = REQUEST.unpack(header)
            data = requests.read(length)
            limits = Limits(max_bytes=length, max_pixels=max_pixels)
            _answer(owner, FORMATS[form], data, limits, short_side or None)


def _answer(owner: socket.socket, name: str, data: bytes, limits: Limits, short_side: int | None) -> None:
    status, picture = _attempt(name, data, limits, short_side)
    if picture is None:
        owner.sendall(REPLY.pack(status, 0, 0, 0, 0))
        return
    rows, columns, _ = picture.pixels.shape
    owner.sendall(REPLY.pack(status, picture.width, picture.height, columns, rows))
    owner.sendall(picture.pixels.data)


def _attempt(name: str, data: bytes, limits: Limits, short_side: int | None) -> tuple[Status, Picture | None]:
    plugin = AvifImagePlugin.AvifImageFile if name == "avif" else _heic_plugin()
    if isinstance(plugin, Status):
        return plugin, None
    try:
        return Status.OK, raster.decode_with(plugin, name, data, limits=limits, short_side=short_side)
    except SampleError as error:
        return _STATUSES.get(type(error), Status.CORRUPT), None


def _heic_plugin() -> raster.Plugin | Status:
    support = heic_support()
    if support is not HeicSupport.READY:
        return _HEIC_STATUSES[support]
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1
    for part in ("THUMBNAILS", "DEPTH_IMAGES", "AUX_IMAGES"):
        setattr(pillow_heif.options, part, False)
    return pillow_heif.HeifImageFile


def _limit_process(memory_bytes: int) -> None:
    """Allow `memory_bytes` of address space beyond what is in use now, and no files."""
    _lower(resource.RLIMIT_AS, _address_space() + memory_bytes)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def _address_space() -> int:
    """Return the bytes of address space in use; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0


def _limit_cpu(cpu_s: float) -> None:
    """Allow `cpu_s` more; the kernel ends the process when they are used up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(usage.ru_utime + usage.ru_stime + cpu_s), hard))


def _lower(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        main(int(sys.argv[1]), float(sys.argv[2]))
