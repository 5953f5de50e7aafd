"""What is not bounded by its structure is decoded apart: within memory and time, replaced, safe between threads."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from shoplens.errors import ImageCorrupt, ImageDecoderFailed, ImageNeedsExtra, QueueFull
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.sandbox_process import (
    BEGUN,
    COMMAND,
    REPLY,
    REQUEST,
    HeicSupport,
    Status,
    heic_support,
    judge,
)
from shoplens.testing.hostile import encoded, photo

AVIF = encoded(photo(), "avif")
_NOISE = np.random.default_rng(1).integers(0, 256, (2_500, 4_000, 3), np.uint8)
LARGE_AVIF = encoded(Image.fromarray(_NOISE), "avif", speed=10)
"""It takes a fifth of a second."""
MEGABYTE = 1_000_000


def process_of(decoder: SandboxedDecoder) -> int:
    """Return the number of the process of a decoder with one worker that is idle."""
    child = decoder._free.queue[-1]
    assert child is not None
    return child.pid


def has_ended(pid: int) -> bool:
    """Whether this process has ended, also from the table of processes."""
    return not pathlib.Path(f"/proc/{pid}").exists()


def decode(decoder: SandboxedDecoder, data: bytes = AVIF) -> tuple[int, int]:
    """Decode an AVIF and return its size."""
    picture = decoder.decode(data, name="avif", limits=Limits())
    return picture.width, picture.height


@pytest.fixture
def own() -> Iterator[SandboxedDecoder]:
    """A decoder of one process that a test may ruin."""
    with SandboxedDecoder(processes=1) as decoder:
        yield decoder


def test_no_process_is_started_before_the_first_picture() -> None:
    """Most shops never see one."""
    with SandboxedDecoder(processes=3) as decoder:
        assert [None] * 3 == list(decoder._free.queue)


def test_a_process_is_kept_for_the_next_picture(own: SandboxedDecoder) -> None:
    """Starting one costs more than decoding."""
    decode(own)
    first = process_of(own)
    decode(own)
    assert first == process_of(own)


def test_a_damaged_file_does_not_cost_the_process(own: SandboxedDecoder) -> None:
    """It answers that the file is damaged, and goes on."""
    decode(own)
    first = process_of(own)
    with pytest.raises(ImageCorrupt):
        decode(own, AVIF[:-30])
    assert (96, 64) == decode(own)
    assert first == process_of(own)


def test_a_process_that_died_while_it_was_idle_costs_the_next_picture_nothing(own: SandboxedDecoder) -> None:
    """The picture is decoded by another process."""
    decode(own)
    first = process_of(own)
    os.kill(first, signal.SIGKILL)
    assert (96, 64) == decode(own)
    assert first != process_of(own)
    assert has_ended(first)


def test_a_server_of_processes_that_died_costs_the_next_picture_nothing(own: SandboxedDecoder) -> None:
    """Those that it had forked go on, and new ones come from another server."""
    decode(own)
    assert own._server._running is not None
    own._server._running[1].kill()
    assert (96, 64) == decode(own)
    os.kill(process_of(own), signal.SIGKILL)
    started = time.monotonic()
    assert (96, 64) == decode(own)
    assert time.monotonic() - started < 10


def test_a_process_that_dies_over_a_picture_is_replaced_and_the_picture_is_not_tried_again(
    own: SandboxedDecoder,
) -> None:
    """Another attempt would cost as much again."""
    decode(own)
    with ThreadPoolExecutor(1) as threads:
        first = process_of(own)
        os.kill(first, signal.SIGSTOP)
        waiting = threads.submit(decode, own, LARGE_AVIF)
        while len(own._free.queue) == 1:
            time.sleep(0.01)
        own._wall_s = 20
        os.kill(first, signal.SIGCONT)
        while not waiting.done() and not has_begun(first):
            time.sleep(0.001)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ImageDecoderFailed):
            waiting.result()
    assert (96, 64) == decode(own)


def has_begun(pid: int) -> bool:
    """Whether the process has mapped a file, which it does for the time of a picture."""
    return "photo" in pathlib.Path(f"/proc/{pid}/maps").read_text()


def test_a_process_that_hangs_is_killed_in_time() -> None:
    """A stopped process is as good as an endless loop."""
    with SandboxedDecoder(processes=1) as decoder:
        decode(decoder)
        decoder._wall_s = 0.3
        hanging = process_of(decoder)
        os.kill(hanging, signal.SIGSTOP)
        with pytest.raises(ImageDecoderFailed, match="too long"):
            decode(decoder)
        assert has_ended(hanging)
        decoder._wall_s = 20
        assert (96, 64) == decode(decoder)


def test_memory_is_limited() -> None:
    """Ten megapixels do not fit into twenty megabytes; some libraries call that damage."""
    with SandboxedDecoder(processes=1, memory_bytes=20 * MEGABYTE) as decoder:
        with pytest.raises((ImageDecoderFailed, ImageCorrupt)):
            decode(decoder, LARGE_AVIF)
        assert (96, 64) == decode(decoder)


def test_processor_time_is_limited() -> None:
    """The kernel ends what counts to infinity; here the allowance ends before the picture does."""
    with SandboxedDecoder(processes=1, cpu_s=0.02) as decoder, pytest.raises(ImageDecoderFailed, match="time"):
        decode(decoder, LARGE_AVIF)


def test_a_caller_waits_a_bounded_time_for_a_free_process() -> None:
    """The error says when to try again."""
    with SandboxedDecoder(processes=1, wait_s=0.05) as decoder:
        taken = decoder._free.get()
        with pytest.raises(QueueFull) as full:
            decode(decoder)
        decoder._free.put(taken)
        assert full.value.retry_after_s > 0
        assert (96, 64) == decode(decoder)


def test_a_process_has_a_lower_priority_within_the_session_of_its_owner(own: SandboxedDecoder) -> None:
    """Costly photos leave the cores to others, and Ctrl-C in a terminal does not reach it."""
    decode(own)
    process = process_of(own)
    mine, others = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, process))
    assert min(19, mine + 5) == others
    assert os.getsid(0) == os.getsid(process)
    assert os.getpgid(0) != os.getpgid(process)


def test_a_large_photo_of_a_phone_gets_more_time_in_proportion() -> None:
    """CPU time and wall time, since its process may have to wait for its core."""
    with SandboxedDecoder(cpu_s=1.0, wall_s=20.0) as decoder:
        small, large = (
            decoder._allowance(encoded(Image.new("RGB", size), "avif", speed=10), "avif", Limits(), None)
            for size in ((64, 64), (4_000, 4_000))
        )
    assert (1.0, 20.0) == (small.cpu_s, small.wall_s)
    assert (2.0, 40.0) == (large.cpu_s, large.wall_s)


def test_threads_get_their_own_pictures() -> None:
    """Forty distinct pictures from eight threads over two processes."""
    shades = range(10, 250, 6)
    files = [encoded(Image.new("RGB", (16, 16), (shade, shade, shade)), "avif", quality=100) for shade in shades]
    with SandboxedDecoder(processes=2) as decoder, ThreadPoolExecutor(8) as threads:
        pictures = list(threads.map(lambda data: decoder.decode(data, name="avif", limits=Limits()), files))
    np.testing.assert_allclose(list(shades), [picture.pixels.mean() for picture in pictures], atol=2)


def test_a_process_is_replaced_after_a_number_of_pictures() -> None:
    """Leaks of a native library cannot add up."""
    with SandboxedDecoder(processes=1, pictures_per_process=2) as decoder:
        decode(decoder)
        first = process_of(decoder)
        decode(decoder)
        assert [None] == list(decoder._free.queue)
        assert has_ended(first)
        assert (96, 64) == decode(decoder)


def test_closing_ends_every_process_and_refuses_more() -> None:
    """Nothing is left behind."""
    decoder = SandboxedDecoder(processes=1)
    decode(decoder)
    process = process_of(decoder)
    decoder.close()
    assert has_ended(process)
    with pytest.raises(ImageDecoderFailed, match="shut down"):
        decode(decoder)


def test_a_process_whose_owner_died_ends_by_itself(own: SandboxedDecoder) -> None:
    """Its socket is closed, and that is the end of it."""
    decode(own)
    assert own._server._running is not None
    owner, server = own._server._running
    process = process_of(own)
    owner.close()
    assert 0 == server.wait(timeout=10)
    assert has_ended(process)


def test_the_process_sees_none_of_the_servers_secrets(own: SandboxedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that is taken over finds no password in its environment."""
    monkeypatch.setenv("SHOPLENS_DATABASE_URL", "postgresql://user:secret@host/db")
    decode(own)
    assert b"secret" not in pathlib.Path(f"/proc/{process_of(own)}/environ").read_bytes()


@pytest.mark.parametrize(
    "reply",
    [
        REPLY.pack(Status.OK, 60_000, 60_000, 60_000, 60_000, False),
        REPLY.pack(Status.OK, 96, 64, 96, 65, False),
        REPLY.pack(Status.OK, 0, 0, 0, 0, False),
        REPLY.pack(99, 96, 64, 96, 64, True),
        REPLY.pack(Status.OK, 96, 64, 96, 64, False) + b"too few pixels",
    ],
    ids=["huge", "other-size", "nothing", "unknown-status", "cut-off"],
)
def test_an_answer_that_cannot_be_true_is_not_believed(
    reply: bytes, own: SandboxedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was taken over may say anything."""
    answer_with(reply, monkeypatch)
    with pytest.raises(ImageDecoderFailed):
        decode(own)
    own._server._stop()
    monkeypatch.undo()
    assert (96, 64) == decode(own)


def answer_with(reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that are started from now on give this answer to any picture."""
    script = f"""
import socket
owner = socket.socket(fileno=0)
message, descriptors, *_ = socket.recv_fds(owner, {COMMAND.size}, 2)
owner.sendall(message)
requests = socket.socket(fileno=descriptors[0])
requests.recv({REQUEST.size}, socket.MSG_WAITALL)
requests.sendall({BEGUN + reply!r})
requests.close()
while message := owner.recv({COMMAND.size}):
    owner.sendall(message)
"""
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda arguments, **options: real([sys.executable, "-c", script], **options)
    )


@pytest.mark.parametrize(
    ("libheif", "libde265", "expected"),
    [
        ("1.23.4", "libde265 HEVC decoder, version 1.1.3", HeicSupport.READY),
        ("1.24.0", "libde265 HEVC decoder, version 1.2.0", HeicSupport.READY),
        ("2.0.0", "libde265 HEVC decoder, version 10.0.0", HeicSupport.READY),
        ("1.23.3", "libde265 HEVC decoder, version 1.1.3", HeicSupport.UNSAFE),
        ("1.9.9", "libde265 HEVC decoder, version 1.1.3", HeicSupport.UNSAFE),
        ("1.23.4", "libde265 HEVC decoder, version 1.1.2", HeicSupport.UNSAFE),
        ("1.23.4", "", HeicSupport.UNSAFE),
        ("", "libde265 HEVC decoder, version 1.1.3", HeicSupport.UNSAFE),
    ],
)
def test_only_fixed_libraries_are_trusted(libheif: str, libde265: str, expected: HeicSupport) -> None:
    """What tells no version is not trusted."""
    assert expected is judge(libheif, libde265)


def test_the_installed_heic_decoder_is_a_fixed_one() -> None:
    """The versions that the test environment has."""
    pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    assert HeicSupport.READY is heic_support()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(Status.EXTRA_MISSING, "the extra `heic`"), (Status.EXTRA_UNSAFE, r"libheif 1\.23\.4")],
)
def test_a_heic_without_a_safe_decoder_says_what_to_do(
    status: Status, sentence: str, own: SandboxedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Install it, update it, or send a JPEG."""
    answer_with(REPLY.pack(status, 0, 0, 0, 0, False), monkeypatch)
    with pytest.raises(ImageNeedsExtra, match=sentence):
        own.decode(b"heic", name="heic", limits=Limits())


def test_the_process_refuses_heic_when_the_package_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra, as the process sees it."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert HeicSupport.MISSING is heic_support()


def test_a_heic_is_reduced_by_the_same_rule(heic: Callable[..., bytes], sandbox: SandboxedDecoder) -> None:
    """In the other process, so that fewer pixels travel."""
    picture = sandbox.decode(heic(Image.new("RGB", (800, 600), "teal")), name="heic", limits=Limits(), short_side=150)
    assert (800, 600) == (picture.width, picture.height)
    assert (150, 200, 3) == picture.pixels.shape


def test_a_picture_is_not_delayed_by_another_that_hangs() -> None:
    """The second process takes it."""
    with SandboxedDecoder(processes=2) as decoder, ThreadPoolExecutor(1) as threads:
        decode(decoder)
        hanging = process_of(decoder)
        os.kill(hanging, signal.SIGSTOP)
        hung = threads.submit(decode, decoder)
        while len(decoder._free.queue) == 2:
            time.sleep(0.01)
        assert (96, 64) == decode(decoder)
        assert not hung.done()
        os.kill(hanging, signal.SIGKILL)
        assert (96, 64) == hung.result()
