"""The batcher: every accepted item gets exactly one outcome, within its bounds, whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
import structlog

from shoplens.errors import EngineStopped, ImageCorrupt, NotStarted, QueueFull, ShoplensError
from shoplens.serving.batcher import Batcher, Batching, PendingRequest, complete

FAR = 60.0


class Outcomes:
    """Collects what `done` is called with."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, outcome: Any) -> None:
        with self._changed:
            self.got.append(outcome)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= count, timeout=20)
            return self.got


class GatedWorker:
    """Notes what it starts, and gives it back once the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started: list[Any] = []

    def __call__(self, batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        self.started.extend(pending.item for pending in batch)
        self.gate.wait(10)
        return echo(batch)


MakeBatcher = Callable[..., Batcher[Any, Any]]


@pytest.fixture
def make_batcher() -> Iterator[MakeBatcher]:
    """Batchers that are closed at the end of the test."""
    made: list[Batcher[Any, Any]] = []

    def make(run: Callable[[Sequence[PendingRequest[Any, Any]]], Sequence[Any]], **bounds: Any) -> Batcher[Any, Any]:
        made.append(Batcher(run, Batching(**{"threads": 1, **bounds})))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close(drain_s=5)


def echo(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
    """Give every item back."""
    return [pending.item for pending in batch]


def soon() -> float:
    """A deadline far enough for any test."""
    return time.monotonic() + FAR


def test_every_item_gets_its_own_answer(make_batcher: MakeBatcher) -> None:
    """A thousand items from eight threads over four threads: none is lost, none doubled, none swapped."""
    batcher = make_batcher(echo, threads=4, max_batch=8, queue_limit=1_000)
    answers: dict[int, list[int]] = {number: [] for number in range(1_000)}
    finished = Outcomes()

    def send(start: int) -> None:
        for number in range(start, 1_000, 8):

            def done(outcome: Any, number: int = number) -> None:
                answers[number].append(outcome)
                finished(number)

            batcher.submit(number, deadline=soon(), done=done)

    threads = [threading.Thread(target=send, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    finished.wait(1_000)
    assert {number: [number] for number in range(1_000)} == answers


def test_a_bad_item_fails_alone(make_batcher: MakeBatcher) -> None:
    """When a batch raises, each of its items is tried by itself."""

    def run(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        if any(pending.item == "bad" for pending in batch):
            raise ImageCorrupt("bad")
        return echo(batch)

    gate = threading.Event()
    batcher = make_batcher(lambda batch: (gate.wait(10), run(batch))[1], max_batch=4, max_wait_s=0.05)
    outcomes = Outcomes()
    for item in ("a", "bad", "b", "c"):
        batcher.submit(item, deadline=soon(), done=outcomes)
    gate.set()
    got = outcomes.wait(4)
    assert ["a", "b", "c"] == sorted(each for each in got if isinstance(each, str))
    assert ["image_corrupt"] == [each.code for each in got if isinstance(each, ShoplensError)]


def test_an_unexpected_exception_becomes_an_internal_error_and_the_thread_survives(make_batcher: MakeBatcher) -> None:
    """The next item is served."""

    def run(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        return [1 // pending.item for pending in batch]

    batcher = make_batcher(run)
    outcomes = Outcomes()
    batcher.submit(0, deadline=soon(), done=outcomes)
    batcher.submit(1, deadline=soon(), done=outcomes)
    first, second = outcomes.wait(2)
    assert ("internal_error", 1) == (first.code, second)


def test_clients_take_turns_however_many_items_one_of_them_has_sent(make_batcher: MakeBatcher) -> None:
    """Each gets its oldest item first."""
    worker = GatedWorker()
    outcomes = Outcomes()
    batcher = make_batcher(worker)
    batcher.submit("running", deadline=soon(), done=outcomes, client="many")
    while len(batcher):
        time.sleep(0.001)
    for item in ("a", "b", "c", "d"):
        batcher.submit(item, deadline=soon(), done=outcomes, client="many")
    for item in ("1", "2"):
        batcher.submit(item, deadline=soon(), done=outcomes, client="few")
    worker.gate.set()
    outcomes.wait(7)
    assert ["running", "a", "1", "b", "2", "c", "d"] == worker.started


def test_a_client_that_fills_the_queue_gives_way_to_others(make_batcher: MakeBatcher) -> None:
    """Its newest item is refused as if it had come later; a client displaces only those with more items than it has."""
    worker = GatedWorker()
    outcomes, displaced = Outcomes(), Outcomes()
    batcher = make_batcher(worker, queue_limit=3)
    batcher.submit("running", deadline=soon(), done=outcomes, client="many")
    while len(batcher):
        time.sleep(0.001)
    for item in ("a", "b"):
        batcher.submit(item, deadline=soon(), done=outcomes, client="many")
    batcher.submit("c", deadline=soon(), done=displaced, client="many")
    with pytest.raises(QueueFull):
        batcher.submit("d", deadline=soon(), done=outcomes, client="many")
    batcher.submit("1", deadline=soon(), done=outcomes, client="few")
    (refusal,) = displaced.wait(1)
    assert isinstance(refusal, QueueFull)
    assert 3 == len(batcher)
    with pytest.raises(QueueFull):
        batcher.submit("2", deadline=soon(), done=outcomes, client="few")
    worker.gate.set()
    outcomes.wait(4)
    assert ["running", "a", "1", "b"] == worker.started


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(make_batcher: MakeBatcher) -> None:
    """Nothing of the refused item is kept."""
    gate = threading.Event()
    outcomes = Outcomes()
    batcher = make_batcher(lambda batch: (gate.wait(10), echo(batch))[1], queue_limit=2)
    batcher.submit("running", deadline=soon(), done=outcomes)
    while len(batcher):
        time.sleep(0.001)
    batcher.submit("first", deadline=soon(), done=outcomes)
    batcher.submit("second", deadline=soon(), done=outcomes)
    with pytest.raises(QueueFull) as refusal:
        batcher.submit("third", deadline=soon(), done=outcomes)
    gate.set()
    assert refusal.value.retry_after_s > 0
    assert ["running", "first", "second"] == outcomes.wait(3)


def test_an_item_whose_deadline_passed_in_the_queue_is_not_run(make_batcher: MakeBatcher) -> None:
    """It gets NotStarted, which tells it from one that was begun."""
    worker = GatedWorker()
    outcomes = Outcomes()
    batcher = make_batcher(worker)
    batcher.submit("running", deadline=soon(), done=outcomes)
    batcher.submit("late", deadline=time.monotonic() + 0.01, done=outcomes)
    time.sleep(0.05)
    worker.gate.set()
    got = outcomes.wait(2)
    assert ["running"] == worker.started
    assert [NotStarted] == [type(each) for each in got if each != "running"]


def test_a_batcher_is_stuck_while_items_wait_and_none_is_finished(make_batcher: MakeBatcher) -> None:
    """A thread at work is not stuck as long as nothing waits for it, and one that goes on is not stuck any more."""
    worker = GatedWorker()
    outcomes = Outcomes()
    batcher = make_batcher(worker)
    running = batcher.submit("running", deadline=soon(), done=outcomes)
    while not running.begun:
        time.sleep(0.001)
    time.sleep(0.1)
    assert (True, 0.0) == (running.begun, batcher.stuck_s)
    waiting = batcher.submit("waiting", deadline=soon(), done=outcomes)
    time.sleep(0.1)
    assert 0.1 <= batcher.stuck_s < 10
    assert not waiting.begun
    worker.gate.set()
    outcomes.wait(2)
    assert batcher.stuck_s == 0.0


def test_an_abandoned_item_is_not_run(make_batcher: MakeBatcher) -> None:
    """Its caller went away while it waited."""
    worker = GatedWorker()
    outcomes = Outcomes()
    batcher = make_batcher(worker)
    batcher.submit("running", deadline=soon(), done=outcomes)
    batcher.submit("left", deadline=soon(), done=outcomes).abandoned = True
    worker.gate.set()
    outcomes.wait(2)
    assert ["running"] == worker.started


def test_batches_fill_up_to_their_size_and_no_further(make_batcher: MakeBatcher) -> None:
    """Eleven waiting items in batches of at most four are three calls."""
    gate = threading.Event()
    sizes: list[int] = []

    def run(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        gate.wait(10)
        sizes.append(len(batch))
        return echo(batch)

    outcomes = Outcomes()
    batcher = make_batcher(run, max_batch=4, max_wait_s=5)
    for number in range(12):
        batcher.submit(number, deadline=soon(), done=outcomes)
    gate.set()
    assert list(range(12)) == sorted(outcomes.wait(12))
    assert max(sizes) == 4
    assert len(sizes) == 3


def test_a_single_item_does_not_wait_for_ever_for_a_full_batch(make_batcher: MakeBatcher) -> None:
    """After `max_wait_s` it goes alone."""
    outcomes = Outcomes()
    batcher = make_batcher(echo, max_batch=32, max_wait_s=0.01)
    batcher.submit("alone", deadline=soon(), done=outcomes)
    assert ["alone"] == outcomes.wait(1)


def test_a_batcher_keeps_all_its_threads_when_another_takes_the_batch_it_waited_for(make_batcher: MakeBatcher) -> None:
    """A thread that finds the queue empty after its wait goes back to waiting."""
    batcher = make_batcher(echo, threads=3, max_batch=2, max_wait_s=0.001)
    for _ in range(200):
        answers: list[Future[int]] = [Future(), Future()]
        for answer in answers:
            batcher.submit(7, deadline=time.monotonic() + 30, done=partial(complete, answer))
        assert [7, 7] == [answer.result(30) for answer in answers]
    assert all(thread.is_alive() for thread in batcher._threads)


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(make_batcher: MakeBatcher) -> None:
    """No caller waits for ever on a closed batcher."""
    outcomes = Outcomes()

    def slowly(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        time.sleep(0.01)
        return echo(batch)

    batcher = make_batcher(slowly)
    for number in range(5):
        batcher.submit(number, deadline=soon(), done=outcomes)
    batcher.close(drain_s=10)
    assert list(range(5)) == outcomes.got
    with pytest.raises(EngineStopped):
        batcher.submit("late", deadline=soon(), done=outcomes)


def test_items_that_cannot_be_finished_before_the_end_get_an_error(make_batcher: MakeBatcher) -> None:
    """Items that wait behind a stuck one get an error when the batcher closes."""
    gate = threading.Event()
    outcomes = Outcomes()
    batcher = make_batcher(lambda batch: (gate.wait(10), echo(batch))[1])
    batcher.submit("stuck", deadline=soon(), done=outcomes)
    while len(batcher):
        time.sleep(0.001)
    batcher.submit("behind", deadline=soon(), done=outcomes)
    batcher.close(drain_s=0.05)
    assert [EngineStopped] == [type(each) for each in outcomes.wait(1)]
    gate.set()
    assert "stuck" in outcomes.wait(2)


def handing_over(to: Batcher[Any, Any]) -> Callable[[Sequence[PendingRequest[Any, Any]]], list[Any]]:
    """Keeps what is small, and puts what is large into another batcher."""

    def run(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        for pending in batch:
            if pending.item >= 100:
                to.enqueue(pending)
        return [pending.item if pending.item < 100 else None for pending in batch]

    return run


def test_an_item_that_is_handed_over_gets_its_outcome_from_the_other_batcher(make_batcher: MakeBatcher) -> None:
    """Exactly one, while those that are not handed over pass it."""
    worker = GatedWorker()
    slow = make_batcher(worker)
    batcher = make_batcher(handing_over(slow), max_batch=2)
    outcomes = Outcomes()
    large = batcher.submit(100, deadline=soon(), done=outcomes)
    batcher.submit(1, deadline=soon(), done=outcomes)
    assert [1] == outcomes.wait(1)
    worker.gate.set()
    assert [1, 100] == outcomes.wait(2)
    assert large.begun
    batcher.close(drain_s=5)
    slow.close(drain_s=5)
    assert [1, 100] == outcomes.got


def test_an_item_that_waits_in_the_other_batcher_has_not_begun_and_keeps_its_deadline(
    make_batcher: MakeBatcher,
) -> None:
    """Nothing was done for it yet."""
    worker = GatedWorker()
    slow = make_batcher(worker)
    batcher = make_batcher(handing_over(slow))
    outcomes = Outcomes()
    first = batcher.submit(100, deadline=soon(), done=outcomes)
    while not worker.started:
        time.sleep(0.001)
    late = batcher.submit(101, deadline=time.monotonic() + 2, done=outcomes)
    while not len(slow):
        time.sleep(0.001)
    assert (True, False) == (first.begun, late.begun)
    time.sleep(2.1)
    worker.gate.set()
    refused = next(each for each in outcomes.wait(2) if each != 100)
    assert isinstance(refused, NotStarted)
    assert [100] == worker.started


def test_an_item_that_the_other_batcher_refuses_gets_that_as_its_outcome(make_batcher: MakeBatcher) -> None:
    """Because its queue is full, or because it is closed."""
    worker = GatedWorker()
    slow = make_batcher(worker, queue_limit=1)
    batcher = make_batcher(handing_over(slow))
    outcomes = Outcomes()
    batcher.submit(100, deadline=soon(), done=outcomes)
    while not worker.started:
        time.sleep(0.001)
    batcher.submit(101, deadline=soon(), done=outcomes)
    batcher.submit(102, deadline=soon(), done=outcomes)
    assert [QueueFull] == [type(each) for each in outcomes.wait(1)]
    slow.close(drain_s=0)
    batcher.submit(103, deadline=soon(), done=outcomes)
    assert [QueueFull, EngineStopped, EngineStopped] == [type(each) for each in outcomes.wait(3)]
    worker.gate.set()
    assert 100 == outcomes.wait(4)[3]


def test_every_item_gets_one_outcome_when_both_batchers_close_during_hand_over(make_batcher: MakeBatcher) -> None:
    """Two hundred items, closed in the middle, the first batcher before the second."""

    def slowly(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        time.sleep(0.0005)
        return echo(batch)

    for pause_s in (0.0, 0.001, 0.005):
        slow = make_batcher(slowly, queue_limit=1_000)
        batcher = make_batcher(handing_over(slow), threads=2, queue_limit=1_000)
        answers: dict[int, list[Any]] = {number: [] for number in range(200)}
        for number, got in answers.items():
            batcher.submit(number, deadline=soon(), done=got.append)
        time.sleep(pause_s)
        batcher.close(drain_s=0.002)
        slow.close(drain_s=0.01)
        give_up_at = time.monotonic() + 20
        while not all(answers.values()):
            assert time.monotonic() < give_up_at, [number for number, got in answers.items() if not got]
            time.sleep(0.01)
        assert all(got == [number] or isinstance(got[0], EngineStopped) for number, got in answers.items())
        assert [1] * 200 == [len(got) for got in answers.values()]


def test_a_callback_that_raises_does_not_end_the_thread(make_batcher: MakeBatcher) -> None:
    """The next item is served."""

    def broken(_: Any) -> None:
        raise RuntimeError("the loop is closed")

    outcomes = Outcomes()
    batcher = make_batcher(echo)
    batcher.submit("first", deadline=soon(), done=broken)
    batcher.submit("second", deadline=soon(), done=outcomes)
    assert ["second"] == outcomes.wait(1)


@pytest.mark.parametrize(
    ("batching", "text"),
    [
        (Batching(threads=1), "single calls on 1 thread"),
        (Batching(threads=2), "single calls on 2 threads"),
        (Batching(threads=1, max_batch=32, max_wait_s=0.002), "batches of up to 32 within 2 ms on 1 thread"),
    ],
)
def test_batching_is_shown_as_text(batching: Batching, text: str) -> None:
    """On the Models page and in /models."""
    assert text == str(batching)


def test_what_a_thread_logs_has_the_id_of_the_request(make_batcher: MakeBatcher) -> None:
    """Each item that of its own caller, and none once there is no caller with one."""
    seen: list[Any] = []

    def run(batch: Sequence[PendingRequest[Any, Any]]) -> list[Any]:
        seen.append((batch[0].item, structlog.contextvars.get_contextvars().get("request_id")))
        return echo(batch)

    batcher, outcomes = make_batcher(run), Outcomes()
    for number, request_id in enumerate(["r1", "r2", None]):
        with structlog.contextvars.bound_contextvars(**({"request_id": request_id} if request_id else {})):
            batcher.submit(number, deadline=time.monotonic() + FAR, done=outcomes)
        outcomes.wait(number + 1)
    assert [(0, "r1"), (1, "r2"), (2, None)] == seen
