"""The features of a text: equal everywhere, without case and accents, in any script, within bounds."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import numpy as np
import pytest

from shoplens.texts.features import TextFeatures, features, words_of
from shoplens.texts.spec import TextSpec

SPEC = TextSpec()
RECORDED_DIGEST = "8265c48a7595593cbc27af96a27f32a017331590e439fa6d38a2cb997d3c22be"


def of(text: str, spec: TextSpec = SPEC) -> TextFeatures:
    """Return the features of a text."""
    return features(text, spec)


def same(one: str, other: str) -> bool:
    """Return whether two texts have the same features, byte by byte."""
    first, second = of(one), of(other)
    return first.tokens.tobytes() == second.tokens.tobytes() and first.weights.tobytes() == second.weights.tobytes()


def overlap(one: str, other: str) -> float:
    """The cosine of two texts."""
    first, second = (dict(zip(of(each).tokens.tolist(), of(each).weights, strict=True)) for each in (one, other))
    dot = sum(weight * second.get(token, 0.0) for token, weight in first.items())
    return float(dot / np.sqrt(sum(w * w for w in first.values()) * sum(w * w for w in second.values())))


def test_the_same_text_gives_the_recorded_bytes() -> None:
    """On every machine and in every process: a bundle is useless where tokens differ."""
    found = of("Robe d'été à fleurs, taille 38\nRobe légère en coton. Größe 38 👗 連衣裙")
    assert (str(found.tokens.dtype), str(found.weights.dtype)) == ("int64", "float32")
    digest = hashlib.sha256(found.tokens.astype("<i8").tobytes() + found.weights.astype("<f4").tobytes()).hexdigest()
    assert (len(found.tokens), digest) == (178, RECORDED_DIGEST)


def test_tokens_are_ascending_distinct_and_below_the_number_of_buckets() -> None:
    """A graph reads a row of its table per token."""
    spec = replace(SPEC, buckets=97)
    found = of("a red dress and a red hat and a red bag", spec)
    assert (np.diff(found.tokens) > 0).all()
    assert 0 <= found.tokens.min() <= found.tokens.max() < 97
    assert (found.weights > 0).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("BLUE Dress", "blue dress"),
        ("robe d'été", "ROBE D\u2019ETE"),
        ("cafe\u0301", "café"),
        ("ｄｒｅｓｓ ①", "dress 1"),
        ("Straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σισυφος"),
        ("blue, dress!", "blue dress"),
        ("t-shirt", "t shirt"),
        ("می\u200cخواهم", "میخواهم"),
        ("½ l", "1⁄2 l"),
    ],
)
def test_case_accents_and_punctuation_do_not_count(one: str, other: str) -> None:
    """Two ways to write the same."""
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("कि", "की"), ("が", "か"), ("dress 38", "dress 40"), ("red dress", "dress red"), ("👗", "👠")]
)
def test_what_means_something_else_differs(one: str, other: str) -> None:
    """Vowel signs, numbers, order and emoji count."""
    assert not same(one, other)


def test_a_misspelt_or_compound_word_is_near_and_another_word_is_not() -> None:
    """Characters tell what whole words do not."""
    assert overlap("sommerkleid", "kleid") > overlap("sommerkleid", "hose") + 0.2
    assert overlap("sunglases", "sunglasses") > 0.5
    assert overlap("連衣裙", "連衣裙子") > 0.3


@pytest.mark.parametrize("text", ["", "   ", "\n", "!?… —", "\u202e\u200f", "\ud83d"])
def test_a_text_without_words_has_no_features(text: str) -> None:
    """Nothing is hashed where there is nothing."""
    assert len(of(text).tokens) == len(of(text).weights) == 0


def test_a_description_counts_half() -> None:
    """The first line is the title."""
    title, description = of("dress"), of("\ndress")
    assert (title.tokens == description.tokens).all()
    assert description.weights**2 == pytest.approx(title.weights**2 / 2)


def test_of_a_megabyte_the_first_words_count_within_a_few_milliseconds() -> None:
    """Neither long words nor many words cost more."""
    for text in ("dress " * 170_000, "x" * 1_000_000, "連" * 1_000_000, "\u0301" * 1_000_000):
        began = time.thread_time()
        found = of(text)
        assert time.thread_time() - began < 0.1
        assert len(found.tokens) <= SPEC.max_features
    words = " ".join(f"word{number}" for number in range(100_000))
    few = replace(SPEC, max_features=50)
    assert set(of("word0 word1", replace(few, characters=(90, 90))).tokens) <= set(of(words, few).tokens)
    assert len(of(words, few).tokens) == 50


def test_words_stand_at_their_places() -> None:
    """In the text as it was given."""
    text = "Robe d'été 👗: हिन्दी, T-Shirt №5"
    words = words_of(text)
    assert [word.text for word in words] == ["Robe", "d", "été", "👗", "हिन्दी", "T", "Shirt", "5"]
    assert all(text[word.start : word.end] == word.text for word in words)
    assert words_of("dress " * 200_000, 11) == words_of("dress dress")


def test_a_title_takes_less_than_a_millisecond() -> None:
    """An answer to a text takes 3 ms in all."""
    title = "Levi's Men's 501® Original Fit Straight-Leg Jeans, stonewashed blue, W32 L34, 100% cotton, Größe 48"
    of(title)
    began = time.thread_time()
    for _ in range(100):
        of(title)
    assert (time.thread_time() - began) / 100 < 0.001
