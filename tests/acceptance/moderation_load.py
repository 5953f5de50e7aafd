"""A shop and its moderators at work against a server that may die at any moment: what they sent, and what was answered.

Each of them repeats what was not answered until it is, as a real client does: an intake with its idempotency key, a
decision with the revision that was seen.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import orjson
from PIL import Image

from shoplens.web.browser import COOKIE
from tests.acceptance.moderation_photos import blurred, sharp

WIDTHS = (160, 320, 640, 1280)
PASSING = {429, 502, 503, 504}
BROKEN = b"\xff\xd8\xff\xe0 this is no photo"


@dataclass
class Answers:
    """What was answered. `intakes` has the ids of the stored photos by idempotency key; a decision is the photo, the
    decider and the state; `unsure` counts decisions whose repetition met another one.
    """

    intakes: dict[str, list[str]] = field(default_factory=dict)
    usable: dict[str, int] = field(default_factory=dict)
    decisions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)
    reports: int = 0
    pictures: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def photos(self) -> list[str]:
        """The ids of all photos that were answered."""
        return [photo for photos in list(self.intakes.values()) for photo in photos]


class Trap:
    """Calls something at the very moment at which the next answer of a kind arrives, once."""

    def __init__(self) -> None:
        self.sprung = threading.Event()
        self._lock = threading.Lock()
        self._kind: str | None = None
        self._action: Callable[[], None] = lambda: None

    def set(self, kind: str | None, action: Callable[[], None]) -> None:
        """None waits for no answer."""
        with self._lock:
            self.sprung.clear()
            self._kind, self._action = kind, action

    def touch(self, kind: str) -> None:
        """An answer of this kind is there."""
        if self._kind == kind:
            with self._lock:
                if self._kind == kind:
                    self._kind = None
                    self._action()
                    self.sprung.set()


class Crowd:
    """Threads that work from `start` to `stop`; `urls` says where the server is now, None while it is nowhere."""

    def __init__(self, seed: int, *, urls: Callable[[], str | None], trap: Trap, intakes: int = 2) -> None:
        self.answers = Answers()
        self._urls = urls
        self._trap = trap
        self._seed = seed
        self._stopping = threading.Event()
        works = [*[self._send_photos] * intakes, self._decide, self._decide, self._report, self._look]
        self._threads = [
            threading.Thread(target=self._until_stopped, args=(work, number), daemon=True)
            for number, work in enumerate(works)
        ]

    def start(self) -> None:
        """Begin to work."""
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """Return when all that was begun is answered."""
        self._stopping.set()
        for each in self._threads:
            each.join(120)
            assert not each.is_alive(), "somebody still waits for an answer"

    def _until_stopped(self, work: Callable[[random.Random, int], None], number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        while not self._stopping.is_set():
            try:
                work(chance, number)
            except Exception as error:  # noqa: BLE001 - it has to be seen, not to end a thread
                self.answers.wrong.append(f"{type(error).__name__}: {error}")
                return

    def _ask(self, method: str, path: str, *, again: bool = True, **request: Any) -> tuple[httpx.Response | None, int]:
        """The answer, and how many attempts had none before. Without `again` it is None if there is none."""
        attempts = 0
        while True:
            url = self._urls()
            if url is None:
                time.sleep(0.01)
                continue
            try:
                answer = httpx.request(method, url + path, timeout=30, trust_env=False, **request)
                if answer.status_code not in PASSING:
                    return answer, attempts
                time.sleep(0.05)
            except httpx.HTTPError:
                time.sleep(0.02)
            attempts += 1
            if not again:
                return None, attempts

    def _send_photos(self, chance: random.Random, number: int) -> None:
        photos = [
            chance.choices((sharp, blurred), (2, 3))[0](chance.getrandbits(40)) for _ in range(chance.randint(1, 3))
        ]
        usable = len(photos)
        if chance.random() < 0.2:
            photos.insert(chance.randint(0, usable), BROKEN)
        key = f"{self._seed}-{chance.getrandbits(64):016x}"
        files = [("file", (f"{at}.jpg", photo)) for at, photo in enumerate(photos)]
        answer, _ = self._ask("POST", "/moderation/photos", files=files, headers={"Idempotency-Key": key})
        assert answer is not None
        self._trap.touch("intake")
        if answer.status_code != 201:
            self.answers.wrong.append(f"intake {answer.status_code}: {answer.text[:300]}")
            return
        self.answers.usable[key] = usable
        self.answers.intakes[key] = [each["id"] for each in answer.json()["photos"] if each["id"] is not None]

    def _decide(self, chance: random.Random, number: int) -> None:
        cookies = {"cookie": f"{COOKIE}={number:032x}"}
        claimed, _ = self._ask("POST", "/moderation/claims", json={"count": 2}, headers=cookies)
        assert claimed is not None
        photos = claimed.raise_for_status().json()["photos"]
        if not photos:
            time.sleep(0.05)
        for photo in photos:
            choice: dict[str, Any] = {"decision": "accept"}
            if chance.random() < 0.5:
                choice = {"decision": "reject", "reason": "nudity"}
            path = f"/moderation/photos/{photo['id']}/decision"
            answer, before = self._ask("POST", path, json={**choice, "seen": photo["revision"]}, headers=cookies)
            assert answer is not None
            self._trap.touch("decision")
            if answer.status_code == 200:
                state = answer.json()["photo"]["state"]
                self.answers.decisions[photo["id"], f"browser:{number:032x}", state] += 1
            elif before and answer.status_code == 409:
                self.answers.unsure[photo["id"]] += 1
            elif answer.status_code != 409:
                self.answers.wrong.append(f"decision {answer.status_code}: {answer.text[:300]}")

    def _report(self, chance: random.Random, number: int) -> None:
        time.sleep(0.05)
        if photos := self.answers.photos:
            path = f"/moderation/photos/{chance.choice(photos)}/report"
            answer, _ = self._ask("POST", path, again=False, json={"reason": "It shows a person."})
            if answer is not None and answer.status_code not in {202, 404, 409}:
                self.answers.wrong.append(f"report {answer.status_code}: {answer.text[:300]}")
            self.answers.reports += answer is not None and answer.status_code == 202

    def _look(self, chance: random.Random, number: int) -> None:
        if photos := self.answers.photos[-20:]:
            width = chance.choice(WIDTHS)
            accept = chance.choice(("image/webp", "image/jpeg"))
            path = f"/media/{chance.choice(photos)}?w={width}"
            answer, _ = self._ask("GET", path, again=False, headers={"accept": accept})
            if answer is not None and answer.status_code != 404:
                self.answers.pictures += 1
                fault = picture_fault(answer, width=width)
                self.answers.wrong += [f"{path}: {fault}"] if fault else []
        time.sleep(0.01)


def picture_fault(answer: httpx.Response, *, width: int) -> str | None:
    """What is wrong with a public picture; None if nothing is."""
    if answer.status_code != 200:
        return f"status {answer.status_code}: {answer.text[:200]}"
    try:
        with Image.open(io.BytesIO(answer.content)) as picture:
            picture.load()
            return f"{picture.width} pixels wide" if picture.width > width else None
    except OSError as error:
        return f"{len(answer.content)} bytes: {error}"


@contextmanager
def listening(trap: Trap) -> Iterator[tuple[str, Counter[str], list[dict[str, Any]]]]:
    """The address of a receiver of webhooks, how often each event came, and the events."""
    counts: Counter[str] = Counter()
    events: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            trap.touch("event")
            self.send_response(204)
            with suppress(OSError):
                self.end_headers()
            counts[self.headers["webhook-id"]] += 1
            events.append(orjson.loads(body))

        def log_message(self, *_: Any) -> None: ...

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.daemon_threads = True
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{receiver.server_port}/hooks", counts, events
    finally:
        receiver.shutdown()
        receiver.server_close()
