"""`python -m bench.hostile`: hostile bodies to a real server, one at a time; what each costs it.

First the files that are made to cost much, then the corpus, then mutated bodies: bytes changed anywhere, and photos
whose structure is changed. Of each body: CPU seconds and memory of the server with all its processes, CPU time of the
event loop's thread, and the longest wait of a second client that asks for /health/live all the time. That wait also
holds what other programs of the machine take, so the same is measured without bodies before. What one of its requests
costs the server is measured then, too, and subtracted.

Exits with status 1 if a body costs more than 1 s, 150 MB or 50 ms of the loop's thread, or is answered with a fault.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from bench.__main__ import heading
from bench.server import Server
from shoplens.serving.cores import usable_cores
from shoplens.testing import costly, hostile, structures
from shoplens.testing.cost import Meter

_MOST_CPU_S = 1.0
_MOST_MEGABYTES = 150
_MOST_LOOP_MS = 50
_WORST = 6
_PING_S = 0.02
_QUIET_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One body and what it cost."""

    name: str
    status: int
    cpu_s: float
    megabytes: float
    loop_ms: float
    wait_ms: float

    @property
    def excessive(self) -> bool:
        """Whether it exceeds a bound. Too many requests (429) and time-outs (503, 504) are answers, not faults."""
        fault = self.status in (500, 502) or self.status > 504
        costly_ = self.cpu_s > _MOST_CPU_S or self.megabytes > _MOST_MEGABYTES or self.loop_ms > _MOST_LOOP_MS
        return fault or costly_


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """What one request of the second client costs the server, and the longest wait while there are no bodies."""

    cpu_s: float
    loop_ms: float
    wait_ms: float


def main() -> None:
    """Send, measure, judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--bodies", type=int, default=3_000, help="mutated bodies; half of them keep the structure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    options = parser.parse_args()
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), options.models_dir.absolute()) as server:
        sent = attack(server, options.bodies, options.seed)
    excessive = [each for each in sent if each.excessive]
    for each in excessive:
        print(f"too much: {each}")
    if excessive:
        sys.exit(f"{len(excessive)} of {len(sent)} bodies cost more than is promised.")


def attack(server: Server, count: int, seed: int) -> list[Sent]:
    """Send all bodies, and print what they cost."""
    began = time.perf_counter()
    with Pinger(server.url) as pinger:
        client = Client(server, pinger)
        for _, body in itertools.islice(_bodies(40, seed + 1), 150, None):
            client.post(body)
        quiet = _quiet(server, pinger)
        sent = [client.measure(name, body, quiet) for name, body in _bodies(count, seed)]
    print(f"{len(sent)} bodies in {time.perf_counter() - began:.0f} s; answers:", _counts(sent))
    print(f"The longest wait of the second client without bodies, in {_QUIET_S:g} s: {quiet.wait_ms:.0f} ms\n")
    for field, unit in (("cpu_s", "s of CPU time"), ("megabytes", "MB"), ("loop_ms", "ms of the loop's thread"),
                        ("wait_ms", "ms that a second client waited")):  # fmt: skip
        worst = sorted(sent, key=lambda each: -getattr(each, field))
        named = ", ".join(f"{getattr(each, field):.3g} ({each.name}, {each.status})" for each in worst[:_WORST])
        middle = getattr(worst[len(worst) // 2], field)
        most = getattr(worst[len(worst) // 100], field)
        print(f"- {unit}: median {middle:.3g}, 99 of 100 at most {most:.3g}; worst {named}")
    return sent


def _bodies(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    yield from costly.costly_files()
    for file in hostile.corpus(seed):
        yield file.name, file.data
    yield from ((f"bytes {number}", body) for number, body in enumerate(hostile.bodies(count // 2, seed)))
    yield from ((f"structure {number}", body) for number, body in enumerate(structures.mutants(count // 2, seed)))


def _quiet(server: Server, pinger: Pinger) -> Ping:
    pinger.take()
    loop_before = _loop_ms(server.pid)
    with Meter(server.pid) as meter:
        time.sleep(_QUIET_S)
    count, longest_s = pinger.take()
    return Ping(
        cpu_s=meter.cost.cpu_s / count,
        loop_ms=(_loop_ms(server.pid) - loop_before) / count,
        wait_ms=1e3 * longest_s,
    )


class Client:
    """Sends bodies over one connection, and measures what each costs the server."""

    def __init__(self, server: Server, pinger: Pinger) -> None:
        self._server = server
        self._pinger = pinger
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)

    def post(self, body: bytes) -> int:
        """The status of the answer; 0 where the server refused the body before it had all of it."""
        try:
            self._connection.request("POST", "/predict", body)
            answer = self._connection.getresponse()
            answer.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            return 0
        return int(answer.status)

    def measure(self, name: str, body: bytes, quiet: Ping) -> Sent:
        """Send it while the second client asks."""
        self._pinger.take()
        loop_before = _loop_ms(self._server.pid)
        with Meter(self._server.pid) as meter:
            status = self.post(body)
        loop_ms = _loop_ms(self._server.pid) - loop_before
        pings, longest_s = self._pinger.take()
        return Sent(
            name=name,
            status=status,
            cpu_s=max(0.0, meter.cost.cpu_s - pings * quiet.cpu_s),
            megabytes=meter.cost.megabytes,
            loop_ms=max(0.0, loop_ms - pings * quiet.loop_ms),
            wait_ms=1e3 * longest_s,
        )


def _loop_ms(pid: int) -> float:
    """CPU time of the server's first thread, which runs the event loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e6


def _counts(sent: list[Sent]) -> str:
    statuses = Counter(each.status for each in sent)
    return ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))


class Pinger:
    """A second client, which asks all the time whether the server lives, and notes how long it waits."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ping, daemon=True)
        self._longest_s = 0.0
        self._count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> tuple[int, float]:
        """How many requests there were since this was asked last, and the longest wait in seconds."""
        count, self._count = self._count, 0
        longest_s, self._longest_s = self._longest_s, 0.0
        return count, longest_s

    def _ping(self) -> None:
        while not self._ended.wait(_PING_S):
            began = time.perf_counter()
            self._connection.request("GET", "/health/live")
            self._connection.getresponse().read()
            self._longest_s = max(self._longest_s, time.perf_counter() - began)
            self._count += 1


if __name__ == "__main__":
    main()
