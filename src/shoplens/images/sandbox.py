"""Photos whose cost their structure does not bound are decoded in processes with limits on memory and time.

This module owns the processes; `sandbox_process` is what runs in them. They are forked from one server that has the
decoders imported, so a new one takes milliseconds.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import queue
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from threading import Event, Lock
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
from shoplens.images import headers
from shoplens.images.picture import MEGABYTE, MEGAPIXEL, Limits, Picture
from shoplens.images.pixels import Pixels, reduction
from shoplens.images.sandbox_process import (
    BEGUN,
    COMMAND,
    END,
    FORK,
    FORMATS,
    REPLY,
    REQUEST,
    SAFE_LIBDE265,
    SAFE_LIBHEIF,
    Status,
)

# A process is replaced after this many pictures, so that no leak of a native library can add up.
_PICTURES_PER_PROCESS: Final = 500
_RETRY_AFTER_S: Final = 2.0
_FORK_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_S: Final = 5.0
_LEAST_SHARED_BYTES: Final = MEGABYTE
# These formats take up to 75 ns and 9 bytes for each pixel, and phones write them with 12 and 24 MP: above these
# sizes they get more time and memory, in proportion.
_COSTLY: Final = ("avif", "heic")
_MORE_TIME_ABOVE_PIXELS: Final = 8 * MEGAPIXEL
_MORE_MEMORY_ABOVE_PIXELS: Final = 12 * MEGAPIXEL

# The environment of the processes: nothing that could be a secret.
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
# Each further arena of the allocator would count as 64 MB of address space. It keeps what an ordinary photo takes for
# the next one: fresh memory costs 2 µs for each page.
_KEPT_BYTES: Final = "33554432"
_ONE_THREAD: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES,
    "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
}

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
    """A few processes that decode any format; safe to share between threads.

    At most `processes` are started, each when it is first needed. One picture may take `memory_bytes` beyond the
    process's own memory, `cpu_s`, and `wall_s` in all (more of each for a large HEIC or AVIF, in proportion to its
    pixels); a process that exceeds them is killed and replaced, and so is one that has decoded `pictures_per_process`.
    A caller waits at most `wait_s` for a free process.
    """

    def __init__(
        self,
        *,
        processes: int = 2,
        memory_bytes: int = 140 * MEGABYTE,
        cpu_s: float = 0.9,
        wall_s: float = 20.0,
        wait_s: float = 10.0,
        pictures_per_process: int = _PICTURES_PER_PROCESS,
    ) -> None:
        self.processes = processes
        """How many photos it decodes at a time."""
        self.longest_s = wait_s + wall_s * Limits().max_whole_pixels / _MORE_TIME_ABOVE_PIXELS
        """What a call of `decode` takes at most."""
        self._memory_bytes = memory_bytes
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._wait_s = wait_s
        self._pictures_per_process = pictures_per_process
        self._closed = Event()
        self._server = _ForkServer()
        # One entry per process that may exist; None stands for one that is not running.
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(None)

    def warm(self) -> None:
        """Start every process that is not running, so that the first picture need not wait."""
        children: list[_Child | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                children.append(self._free.get_nowait())
        for child in children:
            try:
                self._give_back(child or _Child(self._server))
            except (OSError, ValueError):
                self._free.put(None)

    def decode(self, data: bytes, *, name: str, limits: Limits, short_side: int | None = None) -> Picture:
        """Return the upright sRGB picture in a file of the format `name`, as `decoder.decode` describes it.

        Raises the SampleError that says what is wrong with it, ImageDecoderFailed if the process died or took too
        much, and QueueFull if none became free in time.
        """
        if self._closed.is_set():
            raise ImageDecoderFailed("The decoder for this format is shut down. Try again in a moment.")
        allowed = self._allowance(data, name, limits, short_side)
        try:
            child = self._free.get(timeout=self._wait_s)
        except queue.Empty:
            raise QueueFull(
                "Too many photos of this format are being read. Try again in a moment.", retry_after_s=_RETRY_AFTER_S
            ) from None
        try:
            try:
                child = child or _Child(self._server)
                picture = child.decode(data, name, allowed)
            except _NotBegun:  # it ended while it was idle, which is not this picture's fault
                self._kill(child)
                child = None  # should no other be started, it must not be ended twice
                child = _Child(self._server)
                picture = child.decode(data, name, allowed)
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
                self._kill(self._free.get_nowait())
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _allowance(self, data: bytes, name: str, limits: Limits, short_side: int | None) -> _Allowance:
        max_pixels = limits.max_pixels if name == "jpeg" else min(limits.max_pixels, limits.max_whole_pixels)
        pixels = 0
        if name in _COSTLY:
            with contextlib.suppress(ImageCorrupt):
                width, height = headers.read_size(name, data)
                pixels = min(width * height, max_pixels)
        more_time = max(1.0, pixels / _MORE_TIME_ABOVE_PIXELS)
        return _Allowance(
            max_pixels=max_pixels,
            short_side=short_side,
            cpu_s=self._cpu_s * more_time,
            wall_s=self._wall_s * more_time,
            memory_bytes=round(self._memory_bytes * max(1.0, pixels / _MORE_MEMORY_ABOVE_PIXELS)),
        )

    def _give_back(self, child: _Child | None) -> None:
        if child is None or child.pictures >= self._pictures_per_process or self._closed.is_set():
            self._discard(child)
        else:
            self._free.put(child)

    def _discard(self, child: _Child | None) -> None:
        self._kill(child)
        self._free.put(None)

    def _kill(self, child: _Child | None) -> None:
        if child is not None:
            child.kill()


@functools.cache
def _decoder_of(_process: int) -> SandboxedDecoder:
    decoder = SandboxedDecoder()
    atexit.register(decoder.close)
    return decoder


def shared_decoder() -> SandboxedDecoder:
    """Return the decoder for callers that have none of their own; its processes end with this one.

    A forked process gets another: two owners of one socket would read each other's pictures.
    """
    return _decoder_of(os.getpid())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Allowance:
    """What one picture may take."""

    max_pixels: int
    short_side: int | None
    cpu_s: float
    wall_s: float
    memory_bytes: int


class _NotBegun(Exception):
    """The process had ended before it took the request."""


class _Child:
    """One process, the socket to it, and the memory that is shared with it. Raises OSError if none can be started."""

    def __init__(self, server: _ForkServer) -> None:
        self.pictures = 0
        self._server = server
        self._socket, theirs = socket.socketpair()
        self._memory = _shared_memory()
        with theirs:
            try:
                self.pid = server.fork(theirs.fileno(), self._memory)
            except BaseException:
                self._socket.close()
                os.close(self._memory)
                raise

    def decode(self, data: bytes, name: str, allowed: _Allowance) -> Picture:
        """Ask for one picture.

        Raises SampleError if the process says so, _NotBegun if it had ended before, OSError or ValueError if it
        misbehaves.
        """
        self.pictures += 1
        deadline = time.monotonic() + allowed.wall_s
        self._send(data, name, allowed, deadline)
        reply = bytearray(REPLY.size)
        self._receive_into(memoryview(reply), deadline)
        number, width, height, columns, rows, shared = REPLY.unpack(reply)
        status = Status(number)
        if status is not Status.OK:
            kind, sentence = _ERRORS[status]
            raise kind(sentence.format(kind=name.upper(), megapixels=allowed.max_pixels / MEGAPIXEL))
        # A process that was taken over might break the limits or the rule of scaling.
        _, *expected = reduction(width, height, allowed.short_side)
        if not 0 < width * height <= allowed.max_pixels or [columns, rows] != expected:
            raise ValueError("the sandboxed decoder answered with an impossible size")
        pixels: Pixels = np.empty((rows, columns, 3), np.uint8)
        if shared:
            if os.preadv(self._memory, [pixels.data.cast("B")], 0) != pixels.nbytes:
                raise ValueError("the sandboxed decoder answered with too few pixels")
        else:
            self._receive_into(pixels.data.cast("B"), deadline)
        return Picture(pixels=pixels, format=name, width=width, height=height)

    def kill(self) -> None:
        """End the process at once and reap it."""
        self._socket.close()
        os.close(self._memory)
        self._server.end(self.pid)

    def _send(self, data: bytes, name: str, allowed: _Allowance, deadline: float) -> None:
        if os.fstat(self._memory).st_size < len(data):
            os.ftruncate(self._memory, max(_LEAST_SHARED_BYTES, len(data)))
        written = 0
        while written < len(data):
            written += os.pwrite(self._memory, memoryview(data)[written:], written)
        request = REQUEST.pack(
            FORMATS.index(name),
            allowed.max_pixels,
            allowed.short_side or 0,
            len(data),
            allowed.cpu_s,
            allowed.memory_bytes,
        )
        begun = bytearray(len(BEGUN))
        try:
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(request)
            self._receive_into(memoryview(begun), deadline)
        except ConnectionError as error:
            raise _NotBegun from error

    def _receive_into(self, buffer: memoryview, deadline: float) -> None:
        while buffer:
            self._socket.settimeout(_left(deadline))
            count = self._socket.recv_into(buffer)
            if count == 0:
                raise ConnectionResetError("the sandboxed decoder ended before its answer")
            buffer = buffer[count:]


def _shared_memory() -> int:
    """A file that lies in memory where the system offers it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("photo")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _LEAST_SHARED_BYTES)
    return descriptor


class _ForkServer:
    """The process that forks the others; started when it is first needed, and again if it ended."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
        self._closed = False

    def fork(self, requests: int, memory: int) -> int:
        """Start a process with this socket and this memory, and return its number. Raises OSError."""
        with self._lock:
            try:
                return self._ask(FORK, 0, [requests, memory])
            except OSError:
                self._stop()
                return self._ask(FORK, 0, [requests, memory])

    def end(self, pid: int) -> None:
        """Kill and reap a process that `fork` returned. It has ended if the server has."""
        with self._lock:
            if self._running is None:
                return
            try:
                self._ask(END, pid, [])
            except OSError:
                self._stop()

    def close(self) -> None:
        """End the server and all processes that it has forked. Later calls of `fork` raise OSError."""
        with self._lock:
            self._closed = True
            self._stop()

    def _ask(self, action: bytes, number: int, descriptors: list[int]) -> int:
        if self._closed:
            raise ConnectionResetError("the sandboxed decoder is shut down")
        if self._running is None:
            self._running = _start_server()
        owner, _ = self._running
        socket.send_fds(owner, [COMMAND.pack(action, number)], descriptors)
        answer = owner.recv(COMMAND.size, socket.MSG_WAITALL)
        if len(answer) != COMMAND.size:
            raise ConnectionResetError("the server of the sandboxed decoders ended")
        return int(COMMAND.unpack(answer)[1])

    def _stop(self) -> None:
        if self._running is not None:
            owner, process = self._running
            self._running = None
            owner.close()
            try:  # it ends what it has forked
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start_server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(_FORK_TIMEOUT_S)
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join(filter(None, sys.path))
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "shoplens.images.sandbox_process"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment, **_ONE_THREAD, "PYTHONPATH": path},
            # Ctrl-C in a terminal is for the owner, which ends its processes itself. A session of their own would
            # make their lower priority count among themselves only, where the kernel groups processes by session.
            process_group=0,
        )
    return ours, process


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
