"""Who uses a shop's system, and how: shoppers, clerks, an operator. Runs with Locust: `python -m locust -f` this file.

SHOPLENS_LOAD_PHOTOS names a folder of JPEGs; without it photos are made here. SHOPLENS_LOAD_PACE divides all waiting:
with 10, one user does as much as ten. What was refused with a time to wait is counted by itself, under the same name
with "refused" behind it, and the user waits so long. Under Locust, `time.sleep` lets others go on.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from locust import FastHttpUser, between, tag, task

from load import answers
from load.photos import Album, form

PACE: Final = float(os.environ.get("SHOPLENS_LOAD_PACE", "1"))
FOLDER: Final = os.environ.get("SHOPLENS_LOAD_PHOTOS")
REFUSED: Final = "refused"
_MADE_PER_SIZE: Final = 4
_MOST_PAGES: Final = 4
_chance: Final = random.Random()
ALBUM: Final = Album.read(Path(FOLDER)) if FOLDER else Album.made(count=_MADE_PER_SIZE)


def pause(shortest_s: float, longest_s: float) -> Callable[[Any], float]:
    """How long people take between two steps."""
    return between(shortest_s / PACE, longest_s / PACE)


class Visitor(FastHttpUser):
    """What all users share: every answer is checked, and Retry-After is respected."""

    abstract = True
    connection_timeout = 10.0
    network_timeout = 60.0

    def ask(
        self, method: str, path: str, check: answers.Check, *, name: str | None = None, wanted: int = 200, **sent: Any
    ) -> Any:
        """What the check found in the answer; None if there was no right one. Waits as long as a refusal says."""
        named = name or path.partition("?")[0]
        with self.client.request(method, path, name=named, catch_response=True, **sent) as response:
            if not response.status_code:
                response.failure(f"no answer: {getattr(response, 'error', None)!r:.100}")
                return None
            headers = {str(key): str(value) for key, value in (response.headers or {}).items()}
            judged = answers.judge(response.status_code, headers, response.content or b"", wanted=wanted, check=check)
            if judged.wait_s is not None:
                response.request_meta["name"] = f"{named} {REFUSED}"
            if judged.fault is None:
                response.success()
            else:
                response.failure(judged.fault)
        if judged.wait_s is not None:
            time.sleep(judged.wait_s)
        return judged.found

    def get(self, path: str, check: answers.Check, *, name: str | None = None) -> Any:
        """The same for what is only looked at."""
        return self.ask("GET", path, check, name=name)

    def send(self, path: str, check: answers.Check, *, name: str, photo: bytes, file_name: str) -> Any:
        """A form with one photo, as a browser sends it."""
        body, headers = form(photo, file_name)
        return self.ask("POST", path, check, name=name, data=body, headers=headers)


class Shopper(Visitor):
    """Sends a photo and reads what it shows; now and then that is wrong, and is said."""

    weight = 12
    wait_time = pause(2, 8)

    @tag("predict")
    @task(6)
    def look(self) -> None:
        """One photo."""
        self._upload()

    @tag("predict", "feedback")
    @task(1)
    def disagree(self) -> None:
        """One photo, a few seconds to read the answer, and a click."""
        if (prediction_id := self._upload()) is None:
            return
        time.sleep(_chance.uniform(1, 4) / PACE)
        said = {"prediction_id": prediction_id, "verdict": "wrong", "comment": "That is something else."}
        self.ask("POST", "/feedback", answers.feedback, wanted=201, json=said)

    def _upload(self) -> Any:
        """The id of its prediction; None if there was none."""
        size, photo = ALBUM.pick(_chance)
        name = f"/predict {size}"
        return self.send("/predict?top_k=5", answers.prediction, name=name, photo=photo, file_name="photo.jpg")


class Clerk(Visitor):
    """Goes through the records of the day."""

    weight = 3
    wait_time = pause(3, 10)

    @tag("records")
    @task(3)
    def page_through(self) -> None:
        """The newest records and some older ones, a page at a time."""
        older = ""
        for _ in range(_chance.randint(1, _MOST_PAGES)):
            page = self.get(f"/predictions?limit=50{older}", answers.records)
            if page is None or not page["older"]:
                return
            older = f"&before={page['older']}"
            time.sleep(_chance.uniform(1, 3) / PACE)

    @tag("records")
    @task(3)
    def open_one(self) -> None:
        """A record as a page, with its photo where that was kept, and as data."""
        page = self.get("/predictions?limit=50", answers.records)
        if not page or not page["items"]:
            return
        record = _chance.choice(page["items"])
        self.get(f"/console/records/{record['id']}", answers.page, name="/console/records/ID")
        if record["image"]["kept"] != "nothing":
            photo = f"/predictions/{record['id']}/image?size=thumbnail"
            self.get(photo, answers.picture, name="/predictions/ID/image")
        self.get(f"/predictions/{record['id']}", answers.prediction, name="/predictions/ID")

    @tag("records")
    @task(2)
    def view(self) -> None:
        """The list as a page."""
        self.get("/view_db", answers.page)


class BatchClerk(Visitor):
    """Looks after returned goods, and brings in a photo now and then."""

    weight = 2
    wait_time = pause(4, 12)

    @tag("returns")
    @task(5)
    def read_a_run(self) -> None:
        """The list of runs, and the photos of the newest one."""
        found = self.get("/batch/runs?limit=5", answers.runs)
        if found:
            self.get(f"/batch/runs/{found[0]}/items?limit=20", answers.records, name="/batch/runs/ID/items")

    @tag("returns")
    @task(2)
    def overview(self) -> None:
        """The page of runs."""
        self.get("/console/batch/returns", answers.page)

    @tag("returns")
    @task(1)
    def bring_in(self) -> None:
        """One photo for the next run."""
        _, photo = ALBUM.pick(_chance)
        name = f"{_chance.randrange(10**6):06}_{_chance.randrange(10**4):04}.jpg"
        self.send("/batch/ingest", answers.taken_photos, name="/batch/ingest", photo=photo, file_name=name)


class Operator(Visitor):
    """One person, or Prometheus and a load balancer, who ask how it is."""

    fixed_count = 1
    wait_time = pause(3, 6)

    @tag("operations")
    @task(3)
    def health(self) -> None:
        """Whether it can work."""
        self.get("/health/ready", answers.ready)

    @tag("operations")
    @task(2)
    def metrics(self) -> None:
        """What Prometheus takes."""
        self.get("/metrics", answers.metrics)

    @tag("operations")
    @task(1)
    def models(self) -> None:
        """What is served."""
        self.get("/models", answers.models)
        self.get("/console/models", answers.page)
