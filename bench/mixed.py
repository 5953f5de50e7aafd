"""`python -m bench.mixed`: honest requests on a quiet server, then the same under many kinds of attack at once.

The claims that it checks: no honest request fails, and the 99th percentile of the honest photos is at most three times
its quiet value. Exits with status 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from bench.photos import SIZES, photos
from bench.server import Server
from shoplens.testing import cost
from shoplens.testing.hostile import encoded, photo

_CLIENTS = 2
_PERIOD_S = 0.5
_MOST_TIMES_SLOWER = 3.0
_ANSWERED = frozenset({200, 201})


class Honest:
    """Honest clients: photos of 1 MP, now and then another format, and the pages that staff look at."""

    def __init__(self, url: str, seed: int) -> None:
        self._address = urlsplit(url).netloc
        self._chance = random.Random(seed)
        one_megapixel = next(size for size in SIZES if size.name == "1 MP")
        self._photos = photos(one_megapixel)
        self._others = [encoded(photo(800, 600), name) for name in ("png", "webp", "gif", "bmp", "tiff", "avif")]

    def run(self, seconds: float) -> tuple[list[float], list[str]]:
        """Latencies of the JPEGs in seconds, and what failed."""
        stop_at = time.monotonic() + seconds
        latencies: list[float] = []
        failures: list[str] = []
        clients = [threading.Thread(target=self._client, args=(stop_at, latencies, failures)) for _ in range(_CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return latencies, failures

    def _client(self, stop_at: float, latencies: list[float], failures: list[str]) -> None:
        while time.monotonic() < stop_at:
            time.sleep(self._chance.expovariate(1 / _PERIOD_S))
            method, path, body = self._request()
            began = time.perf_counter()
            try:
                with closing(http.client.HTTPConnection(self._address, timeout=60)) as connection:
                    connection.request(method, path, body)
                    answer = connection.getresponse()
                    text = answer.read()
                fault = "" if answer.status in _ANSWERED else f"{answer.status} {text[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
            if fault:
                failures.append(f"{time.strftime('%H:%M:%S')} {method} {path}: {fault}")
            elif body in self._photos:
                latencies.append(time.perf_counter() - began)

    def _request(self) -> tuple[str, str, bytes | None]:
        kind = self._chance.random()
        if kind < 0.7:
            return "POST", "/predict", self._chance.choice(self._photos)
        if kind < 0.85:
            return "POST", "/predict", self._chance.choice(self._others)
        return "GET", self._chance.choice(("/", "/console/records", "/predictions?limit=20", "/health/ready")), None


def main() -> None:
    """Measure quiet, measure under attack, judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.mixed", description=__doc__)
    parser.add_argument("--quiet-s", type=float, default=120)
    parser.add_argument("--attack-s", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    environment = {"SHOPLENS_CHANNELS__LOOK__KEEP": "original"}
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder), options.models_dir.absolute(), environment) as server,
    ):
        honest = Honest(server.url, options.seed)
        honest.run(min(10.0, options.quiet_s))  # warm
        quiet, quiet_failures = honest.run(options.quiet_s)
        before = cost.peak_megabytes(server.pid)
        with subprocess.Popen(
            [sys.executable, "-m", "bench.attack", server.url, str(options.attack_s)], stdout=subprocess.PIPE, text=True
        ) as attack:
            attacked, failures = honest.run(options.attack_s)
            outcomes, _ = attack.communicate()
        after, now = cost.peak_megabytes(server.pid), cost.megabytes(server.pid)
    for kind, met in json.loads(outcomes).items():
        print(f"{kind}: {dict(sorted(met.items()))}")
    for name, latencies in (("quiet", quiet), ("under attack", attacked)):
        print(f"{name}: {len(latencies)} photos, p50 {_percentile(latencies, 50)}, p99 {_percentile(latencies, 99)} ms")
    print(f"the server's process: peak {before:.0f} MB before, {after:.0f} MB after, {now:.0f} MB at the end")
    failures = quiet_failures + failures
    print(f"honest failures: {len(failures)}", *Counter(failures).most_common(20), sep="\n")
    slower = _percentile(attacked, 99) / _percentile(quiet, 99)
    print(f"p99 under attack / quiet: {slower:.2f}")
    if failures or slower > _MOST_TIMES_SLOWER:
        sys.exit("Strangers can make honest requests fail or slow.")


def _percentile(latencies_s: list[float], percent: int) -> float:
    ranked = sorted(latencies_s)
    return round(1e3 * ranked[min(len(ranked) - 1, len(ranked) * percent // 100)], 1)


if __name__ == "__main__":
    main()
