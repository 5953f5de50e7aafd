"""First answers for a tree that no model knows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from shoplens.catalogue.suggest.cold_start import ColdStart, ColdStarts, Example
from shoplens.catalogue.tree.source import read_tree
from shoplens.errors import NotStarted

TREE = read_tree(
    b"id,path,name_de,synonyms\n"
    b"kettle,Kitchen > Kettles,Wasserkocher,water boiler\n"
    b"pan,Kitchen > Frying Pans,Bratpfannen,skillet\n"
    b"lamp,Living > Lamps,Lampen,floor light|reading light\n"
)


def best(cold: ColdStart, text: str, embedding: list[float] | None = None) -> str:
    """The most probable category."""
    scores = cold.scores(text, None if embedding is None else np.array(embedding, np.float32))
    return max(scores, key=lambda each: scores[each])


@pytest.mark.parametrize(
    ("text", "category"),
    [("Cordless kettle 1.7 l", "kettle"), ("Pfanne, Bratpfanne aus Gusseisen", "pan"), ("cast iron skillet", "pan"),
     ("LED reading light, dimmable", "lamp")],
)  # fmt: skip
def test_names_and_synonyms_of_any_language_are_enough(text: str, category: str) -> None:
    """Without one example."""
    assert category == best(ColdStart(TREE), text)


def test_the_scores_are_probabilities_of_the_leaves() -> None:
    """They add up to one."""
    scores = ColdStart(TREE).scores("kettle")
    assert {"kettle", "pan", "lamp"} == set(scores)
    assert pytest.approx(1.0) == sum(scores.values())


def test_what_shares_nothing_with_the_tree_has_no_answer() -> None:
    """Rather than an arbitrary one."""
    assert {} == ColdStart(TREE).scores("12345")
    assert {} == ColdStart(TREE).scores("", np.ones(3, np.float32))


def test_examples_teach_words_that_no_name_has() -> None:
    """Those of categories that the tree lacks are left out."""
    examples = [Example(category="lamp", text=f"Globus Arcadia {n}") for n in range(5)]
    examples.append(Example(category="gone", text="Globus"))
    cold = ColdStart(TREE, examples)
    assert (5, "lamp") == (cold.examples, best(cold, "Globus Meridian"))


def test_photos_are_compared_with_those_of_examples() -> None:
    """By their embeddings; text and photo speak together."""
    examples = [
        Example(category="kettle", text="", embedding=np.array([1.0, 0.1, 0.0], np.float32)),
        Example(category="pan", text="", embedding=np.array([0.0, 0.1, 1.0], np.float32)),
    ]
    cold = ColdStart(TREE, examples)
    assert "pan" == best(cold, "", [0.1, 0.0, 0.9])
    assert "kettle" == best(cold, "kettle", [0.5, 0.0, 0.5])


def test_requests_that_wait_for_a_new_tree_hold_no_threads() -> None:
    """It is made once, and each request ends when its time is over; those that come later get it."""
    may_end, made = threading.Event(), 0

    def examples() -> Iterator[Example]:
        nonlocal made
        made += 1
        may_end.wait(20)
        yield from ()

    async def ask() -> ColdStart:
        starts = ColdStarts(examples)
        early = await asyncio.gather(*(starts.of(TREE, 0.05) for _ in range(50)), return_exceptions=True)
        assert {NotStarted} == {type(each) for each in early}
        async with asyncio.timeout(5):
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(50)))
        may_end.set()
        return await starts.of(TREE, 20)

    assert "kettle" == best(asyncio.run(ask()), "kettle")
    assert 1 == made


def test_a_fault_while_a_tree_is_prepared_reaches_who_waits_and_is_tried_again() -> None:
    """So a database that was away for a moment does no lasting harm."""
    faults = [ValueError("away")]

    def examples() -> Iterator[Example]:
        if faults:
            raise faults.pop()
        yield from ()

    async def ask() -> ColdStart:
        starts = ColdStarts(examples)
        with pytest.raises(ValueError, match="away"):
            await starts.of(TREE, 20)
        return await starts.of(TREE, 20)

    assert "pan" == best(asyncio.run(ask()), "skillet")
