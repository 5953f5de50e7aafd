"""No photo costs more than a second of CPU time and 150 MB, however it was made."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

import pytest
from PIL import Image

from shoplens.errors import ImageDecoderFailed, SampleError
from shoplens.images import icc
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.testing.cost import Cost, Meter
from shoplens.testing.costly import costly_files, flat_webp, overlapping_profile, pipeline_profile, table_profile
from shoplens.testing.hostile import encoded, photo

MOST_CPU_S = 1.0
MOST_MEGABYTES = 150
LIMITS = Limits()


@pytest.fixture(scope="module")
def warm() -> Iterator[SandboxedDecoder]:
    """Two processes that have decoded something."""
    with SandboxedDecoder(processes=2) as decoder:
        decoder.warm()
        for _ in range(2):
            decode(encoded(photo(), "tiff"), limits=LIMITS, sandbox=decoder)
        yield decoder


def cost_of(data: bytes, sandbox: SandboxedDecoder) -> Cost:
    """What decoding it for a model costs this process and its children."""
    with Meter() as meter, contextlib.suppress(SampleError):
        decode(data, limits=LIMITS, short_side=256, sandbox=sandbox)
    return meter.cost


def test_no_file_costs_more_than_is_promised(warm: SandboxedDecoder) -> None:
    """Profiles, tiles, runs, floods of parts, and the largest of everything."""
    files = dict(costly_files())
    assert len(files) > 50
    assert {} == {
        name: cost
        for name, data in files.items()
        if is_too_much(cost := cost_of(data, warm)) and is_too_much(cost := cost_of(data, warm))
    }


def is_too_much(cost: Cost) -> bool:
    """Measured twice where it is: beside other programs the same work takes a tenth more of a processor's time."""
    return cost.cpu_s > MOST_CPU_S or cost.megabytes > MOST_MEGABYTES


def test_an_honest_photo_is_decoded_right_after_an_attack(warm: SandboxedDecoder) -> None:
    """The process that was ended is replaced within milliseconds."""
    attack = encoded(photo(640, 480), "jpeg", icc_profile=pipeline_profile())
    for _ in range(3):
        with pytest.raises(ImageDecoderFailed):
            decode(attack, limits=LIMITS, sandbox=warm)
        with Meter() as meter:
            assert 96 == decode(encoded(photo(), "tiff"), limits=LIMITS, sandbox=warm).width
        assert meter.cost.cpu_s < 0.2


def test_the_meter_sees_what_it_must() -> None:
    """Otherwise the tests above would prove nothing: time and memory, of this process and of those it started."""
    with SandboxedDecoder(processes=1, cpu_s=3, memory_bytes=600_000_000) as roomy:
        attack = encoded(photo(640, 480), "jpeg", icc_profile=pipeline_profile())
        assert cost_of(attack, roomy).cpu_s > 2.5
        large = encoded(Image.new("RGB", (6_000, 4_000)), "tiff", compression="tiff_lzw")
        with Meter() as meter:
            decode(large, limits=LIMITS, short_side=256, sandbox=roomy)
        assert meter.cost.megabytes > 60
    # A mapping of its own: an object may get memory that this process has had before and kept.
    with mmap.mmap(-1, 100_000_000) as held, Meter() as meter:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        sum(range(3_000_000))
    assert meter.cost.megabytes > 90
    assert meter.cost.cpu_s > 0.02


@pytest.mark.parametrize(
    ("profile", "expected"),
    [(table_profile(), True), (pipeline_profile(3), False), (overlapping_profile(), False), (b"", False)],
    ids=["table", "pipeline", "overlapping", "empty"],
)
def test_only_profiles_of_a_simple_structure_are_applied_here(profile: bytes, expected: bool) -> None:
    """The rest goes to the sandbox with its photo."""
    assert expected is icc.is_simple(profile)


def test_a_webp_of_one_colour_is_a_photo_as_long_as_it_is_small() -> None:
    """Its pixels take no bits at all, which is allowed."""
    assert (10, 10, 3) == decode(flat_webp(10, 10), limits=LIMITS).pixels.shape
