"""HEIC and AVIF are decoded in child processes with limits on memory and time, because their libraries are complex.

The first half of this module owns the processes. The second half runs inside one (`python -m shoplens.images.sandbox`):
it reads requests from a socket and answers with raw pixels. Both sides use fixed binary headers, no pickles, no text.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import queue
import re
import resource
import socket
import struct
import subprocess
import sys
import time
from enum import Enum, IntEnum
from pathlib import Path
from threading import Event
from typing import Final, Self

import numpy as np
from PIL import AvifImagePlugin

from shoplens.errors import (
    ImageCorrupt,
    ImageDecoderFailed,
    ImageNeedsExtra,
    ImageTooManyPixels,
    ImageTooSmall,
    QueueFull,
    SampleError,
)
from shoplens.images import formats
from shoplens.images.picture import MEGABYTE, MEGAPIXEL, Limits, Picture
from shoplens.images.pixels import Pixels, reduction

# A process is replaced after this many pictures, so that no leak of a native library can add up.
_PICTURES_PER_PROCESS: Final = 500
_RETRY_AFTER_S: Final = 2.0

# The environment of a child: nothing that could be a secret.
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_FORMATS: Final = ("avif", "heic")
# Request: index into _FORMATS, most pixels allowed, short side wanted (0: full size), length of the file that follows.
_REQUEST: Final = struct.Struct(">BQIQ")
# Reply: status, width and height of the original when upright, width and height of the RGB pixels that follow.
REPLY: Final = struct.Struct(">BIIII")


class Status(IntEnum):
    """The result of a request. Pixels follow only after OK."""

    OK = 0
    CORRUPT = 1
    TOO_MANY_PIXELS = 2
    TOO_SMALL = 3
    OUT_OF_MEMORY = 4
    EXTRA_MISSING = 5
    EXTRA_UNSAFE = 6


# Older versions of the libraries in pillow-heif let a crafted picture run code (fixed in 2026).
SAFE_LIBHEIF: Final = (1, 23, 4)
SAFE_LIBDE265: Final = (1, 1, 3)

# What each status means to the caller.
_ERRORS: Final[dict[Status, tuple[type[SampleError], str]]] = {
    Status.CORRUPT: (ImageCorrupt, "The {kind} file is damaged or incomplete. Upload it again."),
    Status.TOO_MANY_PIXELS: (ImageTooManyPixels, "This photo exceeds the limit of {megapixels:g} MP."),
    Status.TOO_SMALL: (ImageTooSmall, "This photo has no pixels. Choose another photo."),
    Status.OUT_OF_MEMORY: (
        ImageDecoderFailed,
        "Reading this {kind} photo takes more memory than allowed. Send it as a JPEG.",
    ),
    Status.EXTRA_MISSING: (
        ImageNeedsExtra,
        "HEIC photos cannot be read here: the decoder is not installed. Send the photo as a JPEG, or have the server's "
        "owner install the extra `heic`.",
    ),
    Status.EXTRA_UNSAFE: (
        ImageNeedsExtra,
        "HEIC photos are refused here: the installed pillow-heif bundles libraries with known security holes. Send the "
        "photo as a JPEG, or have the server's owner update it "
        f"(libheif {'.'.join(map(str, SAFE_LIBHEIF))} and libde265 {'.'.join(map(str, SAFE_LIBDE265))} or newer are "
        "needed).",
    ),
}


class SandboxedDecoder:
    """A few processes that decode HEIC and AVIF; safe to share between threads.

    At most `processes` are started, each when it is first needed. One picture may take `memory_bytes` beyond the
    process's own memory, `cpu_s`, and `wall_s` in all; a process that exceeds them is killed and replaced, and so is
    one that has decoded `pictures_per_process`. A caller waits at most `wait_s` for a free process.
    """

    def __init__(
        self,
        *,
        processes: int = 2,
        memory_bytes: int = 1_000 * MEGABYTE,
        cpu_s: float = 10.0,
        wall_s: float = 20.0,
        wait_s: float = 20.0,
        pictures_per_process: int = _PICTURES_PER_PROCESS,
    ) -> None:
        self._arguments = (str(memory_bytes), str(cpu_s))
        self._wall_s = wall_s
        self._wait_s = wait_s
        self._pictures_per_process = pictures_per_process
        self._closed = Event()
        # One entry per process that may exist; None stands for one that is not running.
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(None)

    def decode(self, data: bytes, *, name: str, limits: Limits, short_side: int | None = None) -> Picture:
        """Return the upright sRGB picture in an AVIF or HEIC file, as `shoplens.images.decoder.decode` describes it.

        Raises the SampleError that says what is wrong with it, ImageDecoderFailed if the process died or took too
        much, and QueueFull if none became free in time.
        """
        if self._closed.is_set():
            raise ImageDecoderFailed("The decoder for this format is shut down. Try again in a moment.")
        try:
            child = self._free.get(timeout=self._wait_s)
        except queue.Empty:
            raise QueueFull(
                "Too many photos of this format are being read. Try again in a moment.", retry_after_s=_RETRY_AFTER_S
            ) from None
        try:
            child = child or _Child(self._arguments)
            picture = child.decode(data, name, limits, short_side, deadline=time.monotonic() + self._wall_s)
        except SampleError:
            self._give_back(child)
            raise
        except TimeoutError as error:
            self._discard(child)
            raise ImageDecoderFailed("Reading this photo took too long and was stopped. Send it as a JPEG.") from error
        except (OSError, ValueError) as error:
            self._discard(child)
            raise ImageDecoderFailed(
                "Reading this photo took too much memory or time, or failed. Send it as a JPEG."
            ) from error
        except BaseException:
            self._discard(child)
            raise
        self._give_back(child)
        return picture

    def close(self) -> None:
        """End all processes; busy ones end after their picture. Later calls to `decode` raise ImageDecoderFailed."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:
                child = self._free.get_nowait()
                if child is not None:
                    child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_back(self, child: _Child | None) -> None:
        if child is None or child.pictures >= self._pictures_per_process or self._closed.is_set():
            self._discard(child)
        else:
            self._free.put(child)

    def _discard(self, child: _Child | None) -> None:
        if child is not None:
            child.kill()
        self._free.put(None)


@functools.cache
def shared_decoder() -> SandboxedDecoder:
    """Return the decoder for callers that have none of their own; its processes end with this one."""
    decoder = SandboxedDecoder()
    atexit.register(decoder.close)
    return decoder


class _Child:
    """One process and the socket to it."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self.pictures = 0
        self._socket, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        path = os.pathsep.join(filter(None, sys.path))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "shoplens.images.sandbox", *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment, **_ONE_THREAD, "PYTHONPATH": path},
                # Ctrl-C in a terminal is for the owner, which ends its processes itself.
                start_new_session=True,
            )

    def decode(self, data: bytes, name: str, limits: Limits, short_side: int | None, *, deadline: float) -> Picture:
        """Ask for one picture. Raises SampleError if the process says so, OSError or ValueError if it misbehaves."""
        self.pictures += 1
        for part in (_REQUEST.pack(_FORMATS.index(name), limits.max_pixels, short_side or 0, len(data)), data):
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(part)
        reply = bytearray(REPLY.size)
        self._receive_into(memoryview(reply), deadline)
        number, width, height, columns, rows = REPLY.unpack(reply)
        status = Status(number)
        if status is not Status.OK:
            kind, sentence = _ERRORS[status]
            raise kind(sentence.format(kind=name.upper(), megapixels=limits.max_pixels / MEGAPIXEL))
        # A process that was taken over might break the limits or the rule of scaling.
        _, *expected = reduction(width, height, short_side)
        if not 0 < width * height <= limits.max_pixels or [columns, rows] != expected:
            raise ValueError("the sandboxed decoder answered with an impossible size")
        pixels: Pixels = np.empty((rows, columns, 3), np.uint8)
        self._receive_into(pixels.data.cast("B"), deadline)
        return Picture(pixels=pixels, format=name, width=width, height=height)

    def kill(self) -> None:
        """End the process at once and reap it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _receive_into(self, buffer: memoryview, deadline: float) -> None:
        while buffer:
            self._socket.settimeout(_left(deadline))
            count = self._socket.recv_into(buffer)
            if count == 0:
                raise ConnectionResetError("the sandboxed decoder ended before its answer")
            buffer = buffer[count:]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


# HEIC support


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


# Inside the process

_STATUSES: Final = {kind: status for status, (kind, _) in _ERRORS.items() if kind is not ImageNeedsExtra}
_HEIC_STATUSES: Final = {HeicSupport.MISSING: Status.EXTRA_MISSING, HeicSupport.UNSAFE: Status.EXTRA_UNSAFE}


def _serve(memory_bytes: int, cpu_s: float) -> None:
    """Answer requests until the other end of the socket on standard input is closed.

    Allows `memory_bytes` of address space beyond what is in use now, no file writes and no core dumps.
    """
    owner = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    statm = Path("/proc/self/statm")
    in_use = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    for kind, most in (
        (resource.RLIMIT_AS, in_use + memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    with owner, owner.makefile("rb") as requests:
        while request := requests.read(_REQUEST.size):
            # The kernel ends the process when the CPU time is used up.
            usage = resource.getrusage(resource.RUSAGE_SELF)
            cpu_limit = math.ceil(usage.ru_utime + usage.ru_stime + cpu_s)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            form, max_pixels, short_side, length = _REQUEST.unpack(request)
            data = requests.read(length)
            limits = Limits(max_bytes=length, max_pixels=max_pixels)
            status, picture = _decode(_FORMATS[form], data, limits, short_side or None)
            if picture is None:
                owner.sendall(REPLY.pack(status, 0, 0, 0, 0))
            else:
                rows, columns, _ = picture.pixels.shape
                owner.sendall(REPLY.pack(status, picture.width, picture.height, columns, rows))
                owner.sendall(picture.pixels.data)


def _decode(name: str, data: bytes, limits: Limits, short_side: int | None) -> tuple[Status, Picture | None]:
    plugin: formats.Plugin = AvifImagePlugin.AvifImageFile
    if name == "heic":
        support = heic_support()
        if support is not HeicSupport.READY:
            return _HEIC_STATUSES[support], None
        import pillow_heif

        pillow_heif.options.DECODE_THREADS = 1
        for part in ("THUMBNAILS", "DEPTH_IMAGES", "AUX_IMAGES"):
            setattr(pillow_heif.options, part, False)
        plugin = pillow_heif.HeifImageFile
    try:
        return Status.OK, formats.decode_with(plugin, name, data, limits=limits, short_side=short_side)
    except SampleError as error:
        return _STATUSES.get(type(error), Status.CORRUPT), None


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        _serve(int(sys.argv[1]), float(sys.argv[2]))
