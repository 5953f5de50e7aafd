"""What runs in the sandbox: a server that forks decoding processes, and the loop of such a process.

`python -m shoplens.images.sandbox_process` imports the decoders once and then forks a process for each request of its
owner, within milliseconds. Files come and pixels go through memory that is shared with the owner; all else goes
through sockets with fixed binary headers, no pickles, no text.
"""

from __future__ import annotations

import contextlib
import gc
import io
import math
import mmap
import os
import re
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from enum import Enum, IntEnum
from pathlib import Path
from typing import Final, Self, cast

from PIL import AvifImagePlugin, Image

from shoplens.errors import ImageCorrupt, ImageDecoderFailed, ImageTooManyPixels, ImageTooSmall, SampleError
from shoplens.images import formats, headers, pixels
from shoplens.images.bounds import webp_chunks
from shoplens.images.picture import Limits, Picture

FORMATS: Final = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic")
# Request: index into FORMATS, most pixels allowed, short side wanted (0: full size), length of the file in the shared
# memory, CPU seconds and bytes of memory that it may take.
REQUEST: Final = struct.Struct(">BQIQdQ")
# The answer to a request before its file is looked at.
BEGUN: Final = b"\x01"
# Reply: status, width and height of the original when upright, width and height of the RGB pixels, and whether they
# lie in the shared memory or follow.
REPLY: Final = struct.Struct(">BIIII?")
# A command of the owner to the server: to fork (with the socket and the shared memory of the new process), or to end
# and reap the process of this number. The answer is a number of a process.
COMMAND: Final = struct.Struct(">cq")
FORK: Final = b"f"
END: Final = b"e"

# So much lower is the priority of a process: costly photos take what time the others leave.
_NICE: Final = 5
# No request can take more, whatever it says.
_MOST_MEMORY_BYTES: Final = 2_000_000_000


class Status(IntEnum):
    """The result of a request. Pixels follow only after OK."""

    OK = 0
    CORRUPT = 1
    TOO_MANY_PIXELS = 2
    TOO_SMALL = 3
    OUT_OF_MEMORY = 4
    EXTRA_MISSING = 5
    EXTRA_UNSAFE = 6


_STATUSES: Final[dict[type[SampleError], Status]] = {
    ImageCorrupt: Status.CORRUPT,
    ImageTooManyPixels: Status.TOO_MANY_PIXELS,
    ImageTooSmall: Status.TOO_SMALL,
    ImageDecoderFailed: Status.OUT_OF_MEMORY,
}


# HEIC support

# Older versions of the libraries in pillow-heif let a crafted picture run code (fixed in 2026).
SAFE_LIBHEIF: Final = (1, 23, 4)
SAFE_LIBDE265: Final = (1, 1, 3)


class HeicSupport(Enum):
    """What this installation can do with a HEIC photo."""

    READY = "ready"
    MISSING = "missing"
    UNSAFE = "unsafe"


def heic_support() -> HeicSupport:
    """Check whether the extra `heic` is installed and whether its bundled libraries are recent enough."""
    try:
        import pillow_heif
    except ImportError:
        return HeicSupport.MISSING
    info = pillow_heif.libheif_info()
    return judge(str(info.get("libheif", "")), str(info.get("decoders", {}).get("libde265", "")))


def judge(libheif: str, libde265: str) -> HeicSupport:
    """Compare the version numbers in two texts with the oldest safe ones; a text without a number is not safe."""

    def version(text: str) -> tuple[int, ...]:
        found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
        return tuple(int(part) for part in found.groups()) if found else ()

    safe = version(libheif) >= SAFE_LIBHEIF and version(libde265) >= SAFE_LIBDE265
    return HeicSupport.READY if safe else HeicSupport.UNSAFE


_HEIC_STATUSES: Final = {HeicSupport.MISSING: Status.EXTRA_MISSING, HeicSupport.UNSAFE: Status.EXTRA_UNSAFE}


# The server


def serve_forks() -> None:
    """Fork and end processes until the owner closes the socket on standard input."""
    support = _prepare()
    owner = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    running: set[int] = set()
    with owner:
        while command := _receive(owner):
            action, number, descriptors = command
            if action == FORK:
                number = os.fork()
                if number == 0:
                    owner.close()
                    os.close(sys.stdin.fileno())  # the same socket: the owner must see when this server ends
                    _run_forked(descriptors, support)
                running.add(number)
            elif number in running:
                running.remove(number)
                _end(number)
            for descriptor in descriptors:
                os.close(descriptor)
            owner.sendall(COMMAND.pack(action, number))
    for number in running:
        _end(number)


def _receive(owner: socket.socket) -> tuple[bytes, int, list[int]] | None:
    message, descriptors, _, _ = socket.recv_fds(owner, COMMAND.size, 2)
    if len(message) != COMMAND.size:
        return None
    action, number = COMMAND.unpack(message)
    return action, number, descriptors


def _end(number: int) -> None:
    """A process that is not reaped keeps its number, so this never meets another one."""
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)


def _prepare() -> HeicSupport:
    """Import and set up everything before the first fork, and start no thread."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = None  # some plugins check it; the owner's limit counts
    support = heic_support()
    if support is HeicSupport.READY:
        import pillow_heif

        pillow_heif.options.DECODE_THREADS = 1
        for part in ("THUMBNAILS", "DEPTH_IMAGES", "AUX_IMAGES"):
            setattr(pillow_heif.options, part, False)
    gc.collect()
    gc.freeze()
    return support


def _run_forked(descriptors: list[int], support: HeicSupport) -> None:
    """The whole life of a forked process."""
    status = 1
    try:
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
            requests, memory = descriptors
            serve_requests(socket.socket(fileno=requests), memory, support)
        status = 0
    finally:
        os._exit(status)


# A decoding process


def serve_requests(owner: socket.socket, memory: int, support: HeicSupport) -> None:
    """Answer requests until the other end of `owner` is closed. Allows no file writes and no core dumps."""
    os.nice(_NICE)
    for kind, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, _address_space() + _MOST_MEMORY_BYTES),
    ):
        resource.setrlimit(kind, (most, most))
    with owner, owner.makefile("rb") as requests:
        while request := requests.read(REQUEST.size):
            owner.sendall(BEGUN)
            form, max_pixels, short_side, length, cpu_s, memory_bytes = REQUEST.unpack(request)
            limits = Limits(max_bytes=length, max_pixels=max_pixels, max_whole_pixels=max_pixels)
            with _mapped(memory, length) as data, _limited(cpu_s, memory_bytes):
                status, picture = _decode(FORMATS[form], data, limits, short_side or None, support)
            _reply(owner, memory, status, picture)


@contextlib.contextmanager
def _limited(cpu_s: float, memory_bytes: int) -> Iterator[None]:
    """The kernel ends the process when its CPU time is used up, and refuses memory beyond what it has now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most_s = math.ceil(usage.ru_utime + usage.ru_stime + cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    _, most_bytes = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(_address_space() + memory_bytes, most_bytes), most_bytes))
    # Finer than the limit above, which counts whole seconds.
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def _address_space() -> int:
    """Bytes in use now; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0


class _File(mmap.mmap):
    """A file that decoders read where it lies, without a copy."""

    def __new__(cls, memory: int, length: int) -> Self:
        """Map all pages at once, which costs less than meeting them one by one."""
        populated = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        return super().__new__(cls, memory, length, flags=populated, prot=mmap.PROT_READ)

    def __init__(self, memory: int, length: int) -> None:
        self._memory = memory

    def fileno(self) -> int:
        """Where libtiff may read for itself."""
        return self._memory


@contextlib.contextmanager
def _mapped(memory: int, length: int) -> Iterator[mmap.mmap]:
    """The file in the shared memory."""
    data = _File(memory, length)
    try:
        yield data
    finally:
        with contextlib.suppress(BufferError):  # a decoder may still hold a view of it
            data.close()


def _decode(
    name: str, data: mmap.mmap, limits: Limits, short_side: int | None, support: HeicSupport
) -> tuple[Status, Picture | None]:
    if name == "heic" and support is not HeicSupport.READY:
        return _HEIC_STATUSES[support], None
    try:
        return Status.OK, _decode_format(name, data, limits, short_side)
    except SampleError as error:
        return _STATUSES.get(type(error), Status.CORRUPT), None
    except MemoryError:
        return Status.OUT_OF_MEMORY, None
    except Exception:  # noqa: BLE001 - a file that breaks our own reading of it is damaged
        return Status.CORRUPT, None


def _decode_format(name: str, data: mmap.mmap, limits: Limits, short_side: int | None) -> Picture:
    match name:
        case "jpeg":
            whole = data[:]
            header = headers.read_jpeg(whole)
            if header.components in (1, 3) and (decoded := formats.decode_jpeg(whole, header, short_side)) is not None:
                return pixels.upright(decoded, header.orientation, name=name, width=header.width, height=header.height)
        case "webp" if b"ANIM" not in webp_chunks(data):
            return formats.decode_webp(data[:], limits=limits, short_side=short_side)
    file = cast("io.BytesIO", headers.first_tiff_page(data) if name == "tiff" else data)
    return formats.decode_with(_plugin(name), name, file, limits=limits, short_side=short_side)


def _plugin(name: str) -> formats.Plugin:
    if name == "avif":
        return AvifImagePlugin.AvifImageFile
    if name == "heic":
        import pillow_heif

        return pillow_heif.HeifImageFile
    return formats.PLUGINS[name]


def _reply(owner: socket.socket, memory: int, status: Status, picture: Picture | None) -> None:
    if picture is None:
        owner.sendall(REPLY.pack(status, 0, 0, 0, 0, False))
        return
    rows, columns, _ = picture.pixels.shape
    shared = picture.pixels.nbytes <= os.fstat(memory).st_size
    if shared:
        with mmap.mmap(memory, picture.pixels.nbytes) as written:
            written[:] = picture.pixels.data.cast("B")
    owner.sendall(REPLY.pack(status, picture.width, picture.height, columns, rows, shared))
    if not shared:
        owner.sendall(picture.pixels.data)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        serve_forks()
