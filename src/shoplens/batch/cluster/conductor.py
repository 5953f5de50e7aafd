"""The actor on the cluster that runs Ray Data: blocks of photos come in from the driver, rows go back to it.

Ray Data works on data sets that are known when it starts; a night's photos become known as they are leased. So the data
set is one of tickets: a task that gets one asks the conductor for a block of photos and works on that. A ticket that is
worked on a second time, because its node died, is given the same block again. While the driver leases nothing, tasks
wait; while the driver is slow to take results, Ray Data holds the tasks back. So no more photos are under way than the
driver has given.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shoplens.batch.cluster.node import Columns, ModelStage, PixelStage, Row, rows_of
from shoplens.batch.cluster.plan import Block, Plan

_LONGEST_WAIT_S: Final = 1.0
_TASK_RETRIES: Final = 1
_FOR_EVER: Final = -1
_SUSPECT_RETRIES: Final = 0
_LONGEST_REASON: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One data set. A lenient one leaves out blocks whose processes die, a strict one ends with them."""

    tickets: int
    actors: int
    gpus: int = 0
    lenient: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Rows that came out since the last time. With `ended` nothing more will come; `error` says why it ended early."""

    rows: Sequence[Row] = ()
    ended: bool = False
    error: str | None = None


class Blocks:
    """Blocks that wait, and those that tickets have. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Block] = deque()
        self._taken: dict[int, Block] = {}
        self._ticket_of: dict[str, int] = {}
        self._left: dict[int, int] = {}
        self._over = False
        self._asked = False

    def give(self, blocks: Sequence[Block]) -> None:
        """For whoever takes next."""
        with self._changed:
            self._waiting.extend(blocks)
            self._changed.notify_all()

    def take(self, ticket: int, wait_s: float = _LONGEST_WAIT_S) -> Block | None:
        """The block of this ticket, the same each time; None where there is none yet.

        It is empty once the ticket was answered, or all is over.
        """
        with self._changed:
            self._asked = True
            self._changed.notify_all()
            if ticket in self._left:
                return self._taken.get(ticket, ())
            self._changed.wait_for(lambda: self._waiting or self._over, timeout=wait_s)
            if self._over:
                return ()
            if not self._waiting:
                return None
            block = self._waiting.popleft()
            self._taken[ticket] = block
            self._left[ticket] = len(block)
            self._ticket_of.update((photo.id, ticket) for photo in block)
            return block

    def asked(self, wait_s: float) -> bool:
        """Whether somebody has asked for a block yet, or soon does."""
        with self._changed:
            return self._changed.wait_for(lambda: self._asked or self._over, timeout=wait_s)

    def answered(self, ids: Sequence[str]) -> None:
        """These came back; a ticket all of whose photos did is forgotten but for its number."""
        with self._changed:
            for ticket in [self._ticket_of.pop(each) for each in ids if each in self._ticket_of]:
                self._left[ticket] -= 1
                if not self._left[ticket]:
                    self._taken.pop(ticket, None)

    def withdraw(self) -> list[str]:
        """Take back what nobody has taken yet: the ids of its photos. Nothing more will come after that."""
        with self._changed:
            ids = [photo.id for block in self._waiting for photo in block]
            self._waiting.clear()
        self.end()
        return ids

    def end(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Conductor:
    """An actor with many threads: tasks wait in `take`, the driver in `collect`."""

    def __init__(self, plan: Plan, bundle: list[Any]) -> None:
        self._plan = plan
        self._bundle = bundle
        self._blocks = Blocks()
        self._changed = threading.Condition()
        self._rows: deque[Row] = deque()
        self._ended = False
        self._error: str | None = None

    def start(self, me: Any, course: Course, blocks: Sequence[Block]) -> None:
        """Begin a data set, whose first blocks these are; the one before has ended. `me` is this actor's handle."""
        self._blocks = Blocks()
        self._blocks.give(blocks)
        with self._changed:
            self._rows.clear()
            self._ended, self._error = False, None
        threading.Thread(target=self._run, args=(me, course), daemon=True, name="data-set").start()

    def give(self, blocks: Sequence[Block]) -> None:
        """See Blocks."""
        self._blocks.give(blocks)

    def take(self, ticket: int) -> Block | None:
        """See Blocks. Short, so that those who wait never keep others from being answered."""
        return self._blocks.take(ticket)

    def asked(self) -> bool:
        """See Blocks."""
        return self._blocks.asked(_LONGEST_WAIT_S)

    def withdraw(self) -> list[str]:
        """See Blocks."""
        return self._blocks.withdraw()

    def collect(self, wait_s: float) -> Collected:
        """What came out, as soon as there is something."""
        with self._changed:
            self._changed.wait_for(lambda: self._rows or self._ended, timeout=wait_s)
            rows = tuple(self._rows)
            self._rows.clear()
            return Collected(rows=rows, ended=self._ended, error=self._error)

    def _run(self, me: Any, course: Course) -> None:
        blocks = self._blocks
        error: str | None = None
        try:
            for batch in _data_set(self._plan, self._bundle, me, course):
                rows = rows_of(batch["row"])
                blocks.answered([row.id for row in rows])
                with self._changed:
                    self._rows.extend(rows)
                    self._changed.notify_all()
        except Exception as failure:  # noqa: BLE001 - whatever ends it, the driver is told
            error = f"{type(failure).__name__}: {str(failure).strip()[-_LONGEST_REASON:]}"
        finally:
            blocks.end()
            with self._changed:
                self._ended, self._error = True, error
                self._changed.notify_all()


class TicketStage:
    """A ticket in, the encoded photos of its block out. What it holds is made once in each process."""

    def __init__(self, plan: Plan, conductor: Any) -> None:
        self._plan = plan
        self._conductor = conductor

    def __call__(self, batch: dict[str, Any]) -> Columns:
        """For Ray Data."""
        blocks = [self._block(ticket) for ticket in batch["id"].tolist()]
        return _pixels(self._plan)(tuple(photo for block in blocks for photo in block))

    def _block(self, ticket: int) -> Block:
        import ray

        while (block := ray.get(self._conductor.take.remote(ticket))) is None:
            pass
        return tuple(block)


class AnswerStage(ModelStage):
    """The same with the bundle's bytes by reference: each node fetches them once."""

    def __init__(self, plan: Plan, bundle: list[Any]) -> None:
        import ray

        super().__init__(plan, ray.get(bundle[0]))


_stages: dict[Plan, PixelStage] = {}


def _pixels(plan: Plan) -> PixelStage:
    """One for all tasks of this process; a later night brings another plan."""
    if plan not in _stages:
        _stages.clear()
        _stages[plan] = PixelStage(plan)
    return _stages[plan]


def _data_set(plan: Plan, bundle: list[Any], me: Any, course: Course) -> Any:
    """Batches of rows as they come. Reading and decoding are tasks; the model is held by a pool of actors.

    The actors ask for no processor of their own: how many of them there are follows from how much waits for them, and
    the kernel divides the processors between them and the tasks. A share for each would leave one of both idle.
    """
    import ray.data

    _be_quiet(lenient=course.lenient)
    # An actor whose node was lost uses up its retries within moments, before Ray has noticed; so they have no end.
    retries, calls = (_SUSPECT_RETRIES,) * 2 if course.lenient else (_TASK_RETRIES, _FOR_EVER)
    tickets = ray.data.range(course.tickets, override_num_blocks=course.tickets)
    encoded = tickets.map_batches(
        TicketStage(plan, me), batch_size=None, num_cpus=1, max_retries=retries, zero_copy_batch=True
    )
    answered = encoded.map_batches(
        AnswerStage,
        fn_constructor_args=(plan, bundle),
        batch_size=None,
        num_cpus=0,
        num_gpus=1 if course.gpus else None,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, course.actors)),
        max_task_retries=calls,
    )
    return answered.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy")


def _be_quiet(*, lenient: bool) -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.max_errored_blocks = -1 if lenient else 0
