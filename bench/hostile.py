"""`python -m bench.hostile`: hostile and random bodies to a real server; counts answers, watches its memory.

The claim that it checks: no 500, no crash, no growth of memory. Exits with status 1 where it does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import local
from urllib.parse import urlsplit

from bench import cost
from bench.server import Server
from shoplens.testing.hostile import bodies

_CLIENTS = 4
_CHUNK = 500


def main() -> None:
    """Send, count, judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), options.models_dir.absolute()) as server:
        statuses, megabytes = attack(server, options.count)
    print(f"answers: {dict(sorted(statuses.items()))}")
    print(f"memory in MB after each {_CHUNK}: {', '.join(f'{each:.0f}' for each in megabytes)}")
    if any(status >= 500 for status in statuses):
        sys.exit("A body made the server fail.")


def attack(server: Server, count: int) -> tuple[Counter[int], list[float]]:
    """The statuses of all answers, and the server's memory after each chunk."""
    statuses: Counter[int] = Counter()
    megabytes: list[float] = []
    own = local()
    address = urlsplit(server.url).netloc

    def send(body: bytes) -> int:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(address, timeout=60)
        own.connection.request("POST", "/predict", body)
        answer = own.connection.getresponse()
        answer.read()
        return int(answer.status)

    waiting = bodies(count)
    with ThreadPoolExecutor(_CLIENTS) as clients:
        while chunk := list(islice(waiting, _CHUNK)):
            statuses.update(clients.map(send, chunk))
            megabytes.append(cost.megabytes(server.pid))
    return statuses, megabytes


if __name__ == "__main__":
    main()
