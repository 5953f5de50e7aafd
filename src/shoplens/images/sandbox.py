"""Own the isolated decoder processes: start them late, wait for them a bounded time, kill and replace them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import queue
import socket
import subprocess
import sys
import time
from threading import Event
from typing import Final, Self

import numpy as np

from shoplens.errors import (
    ImageCorrupt,
    ImageDecoderFailed,
    ImageNeedsExtra,
    ImageTooManyPixels,
    ImageTooSmall,
    QueueFull,
    SampleError,
)
from shoplens.images import geometry
from shoplens.images.geometry import Pixels
from shoplens.images.heif import SAFE_LIBDE265, SAFE_LIBHEIF
from shoplens.images.picture import MEGABYTE, MEGAPIXEL, Limits, Picture
from shoplens.images.sandbox_protocol import FORMATS, REPLY, REQUEST, Status

# A process is replaced after this many pictures, so that no leak of a native library can add up.
_PICTURES_PER_PROCESS: Final = 500
_RETRY_AFTER_S: Final = 2.0

# What a child may see of this process's environment: nothing that could be a secret.
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class SandboxedDecoder:
    """A few processes that decode HEIC and AVIF; safe to share between threads.

    `processes` processes at most are started, each when it is first needed. One picture may take `memory_bytes` beyond
    the process's own memory, `cpu_s`, and `wall_s` in all; a process that exceeds them is killed and
    replaced. A caller waits at most `wait_s` for a free process.
    """

    def __init__(
        self,
        *,
        processes: int = 2,
        memory_bytes: int = 1_000 * MEGABYTE,
        cpu_s: float = 10.0,
        wall_s: float = 20.0,
        wait_s: float = 20.0,
    ) -> None:
        self._arguments = (str(memory_bytes), str(cpu_s))
        self._wall_s = wall_s
        self._wait_s = wait_s
        self._closed = Event()
        # One entry per process that may exist; None stands for one that is not running.
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(None)

    def decode(self, data: bytes, *, name: str, limits: Limits, short_side: int | None = None) -> Picture:
        """Return the upright sRGB picture in an AVIF or HEIC file, as `shoplens.images.decode` describes it.

        Raises the SampleError that tells what is wrong with it, ImageDecoderFailed if the process died or took too
        much, and QueueFull if none became free in time.
        """
        child = self._take()
        try:
            child = child or _Child(self._arguments)
            picture = child.decode(data, name, limits, short_side, deadline=time.monotonic() + self._wall_s)
        except SampleError:
            self._give_back(child)
            raise
        except BaseException as error:
            self._discard(child)
            if isinstance(error, OSError | ValueError):
                raise _failed(error) from error
            raise
        self._give_back(child)
        return picture

    def close(self) -> None:
        """End all processes; those at work end with their picture. Later calls to `decode` raise ImageDecoderFailed."""
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

    def _take(self) -> _Child | None:
        if self._closed.is_set():
            raise ImageDecoderFailed("The decoder for this format is shut down. Try again in a moment.")
        try:
            return self._free.get(timeout=self._wait_s)
        except queue.Empty:
            raise QueueFull(
                "Too many photos of this format are being read. Try again in a moment.", retry_after_s=_RETRY_AFTER_S
            ) from None

    def _give_back(self, child: _Child | None) -> None:
        if child is None or child.worn_out or self._closed.is_set():
            self._discard(child)
        else:
            self._free.put(child)

    def _discard(self, child: _Child | None) -> None:
        if child is not None:
            child.kill()
        self._free.put(None)


@functools.cache
def shared_decoder() -> SandboxedDecoder:
    """Return the decoder for callers that own none; its processes end with this one."""
    decoder = SandboxedDecoder()
    atexit.register(decoder.close)
    return decoder


class _Child:
    """One process and the socket to it."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self._socket, theirs = socket.socketpair()
        self._pictures = 0
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "shoplens.images.sandbox_child", *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                # Ctrl-C in a terminal is for the owner, which ends its processes itself.
                start_new_session=True,
            )

    @property
    def worn_out(self) -> bool:
        """Whether it has done its share and should be replaced."""
        return self._pictures >= _PICTURES_PER_PROCESS

    def decode(self, data: bytes, name: str, limits: Limits, short_side: int | None, *, deadline: float) -> Picture:
        """Ask for one picture. Raises SampleError if the process says so, OSError or ValueError if it misbehaves."""
        self._pictures += 1
        request = REQUEST.pack(FORMATS.index(name), limits.max_pixels, short_side or 0, len(data))
        self._send(request, deadline)
        self._send(data, deadline)
        reply = bytearray(REPLY.size)
        self._receive_into(memoryview(reply), deadline)
        status, width, height, columns, rows = REPLY.unpack(reply)
        if Status(status) is not Status.OK:
            raise _refusal(Status(status), name, limits)
        if not _plausible((width, height), (columns, rows), limits, short_side):
            raise ValueError("the isolated decoder announced an impossible size")
        pixels: Pixels = np.empty((rows, columns, 3), np.uint8)
        self._receive_into(pixels.data.cast("B"), deadline)
        return Picture(pixels=pixels, format=name, width=width, height=height)

    def kill(self) -> None:
        """End the process at once and leave nothing of it behind."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _send(self, data: bytes, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(data)

    def _receive_into(self, buffer: memoryview, deadline: float) -> None:
        while buffer:
            self._socket.settimeout(_left(deadline))
            count = self._socket.recv_into(buffer)
            if count == 0:
                raise ConnectionResetError("the isolated decoder ended before its answer")
            buffer = buffer[count:]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _plausible(size: tuple[int, int], reduced: tuple[int, int], limits: Limits, short_side: int | None) -> bool:
    """Tell whether an answer keeps the limits and the rule of scaling; a process taken over might not."""
    width, height = size
    scale = geometry.reduction(width, height, short_side)
    expected = (geometry.reduced(width, scale), geometry.reduced(height, scale))
    return 0 < width * height <= limits.max_pixels and reduced == expected


def _failed(error: Exception) -> ImageDecoderFailed:
    if isinstance(error, TimeoutError):
        return ImageDecoderFailed("Reading this photo took too long and was stopped. Send it as a JPEG.")
    return ImageDecoderFailed("Reading this photo took too much memory or time, or failed. Send it as a JPEG.")


def _refusal(status: Status, name: str, limits: Limits) -> SampleError:
    """Say in our own words what the process's number means."""
    kind = name.upper()
    match status:
        case Status.TOO_MANY_PIXELS:
            megapixels = f"{limits.max_pixels / MEGAPIXEL:g} megapixels"
            return ImageTooManyPixels(f"The photo has more than the {megapixels} that are allowed. Send a smaller one.")
        case Status.TOO_SMALL:
            return ImageTooSmall("The photo has a side of zero pixels: there is nothing to see. Send another photo.")
        case Status.OUT_OF_MEMORY:
            return ImageDecoderFailed(f"Reading this {kind} photo takes more memory than allowed. Send it as a JPEG.")
        case Status.EXTRA_MISSING:
            return ImageNeedsExtra(
                "HEIC photos cannot be read here: the decoder is not installed. Send the photo as a JPEG, or have the "
                'server\'s owner run `pip install "shoplens[heic]"`.'
            )
        case Status.EXTRA_UNSAFE:
            return ImageNeedsExtra(
                "HEIC photos are refused here: the installed pillow-heif bundles libraries with known holes. Send the "
                f"photo as a JPEG, or have the server's owner update it (libheif {_dotted(SAFE_LIBHEIF)} and libde265 "
                f"{_dotted(SAFE_LIBDE265)} or newer are needed)."
            )
        case _:
            return ImageCorrupt(f"The {kind} file is damaged or was cut off on its way. Send the photo again.")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
