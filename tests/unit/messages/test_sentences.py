"""Finished English sentences, such as those of errors, are said in the language of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from shoplens.errors import DatabaseUnavailable, ImageTooLarge
from shoplens.messages import DEFAULT, FOLDER, LANGUAGES, SENTENCE, known, speaking
from tools.sentences import sentences_of, shown_errors


@pytest.fixture
def german() -> Iterator[None]:
    """The page is in German."""
    with speaking("de"):
        yield


def messages_of(source: str) -> list[str]:
    """What the tools find in a module of a feature."""
    return list(sentences_of("batch/service.py", source, frozenset({"ItemNotReady"})))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('raise ItemNotReady("It is at 100 %.")', ["It is at 100 %%."]),
        ('ItemNotReady(f"The item {item.id} is gone.")', ["The item %(id)s is gone."]),
        ('ItemNotReady(f"{size / 1e6:.1f} MB since {day:%Y-%m-%d}")', ["%(size_number)s MB since %(day)s"]),
        ("ItemNotReady(f\"A {names[0]} in {', '.join(names)}\")", ["A %(names)s in %(names_2)s"]),
        ('ItemNotReady(f"It is {state.value}.")', ["It is %(state_words)s."]),
        ('ItemNotReady(f"No {name!r}{meant(name, known)}")', ["No '%(name)s'%(meant)s"]),
        ("ItemNotReady(f\"Send {'a text' if x else 'photos'}.\")", ["a text", "photos", "Send %(value_words)s."]),
        ('ItemNotReady("One." if x else f"Two {y}.")', ["One.", "Two %(y)s."]),
        ('_WHY = "It waits."\nItemNotReady(_WHY)', ["It waits."]),
        ('said = marked(f"{number} of them")', ["%(number)s of them"]),
        ('class Away(Exception):\n    public_message = "It is away."', ["It is away."]),
        ('Finding(subject="x", summary=f"{left:,} are left.")', ["%(left_number)s are left."]),
        ('print(f"The item {item.id}")', []),
        ('ItemNotReady(f"Send: curl -F {name}")', []),
    ],
)
def test_what_an_error_says_is_a_message_without_a_mark(source: str, expected: list[str]) -> None:
    """With its values in named places; what only programs read is none."""
    assert expected == messages_of(source)


def test_settings_are_described_on_their_page() -> None:
    """What the fields of other models say is for the reference of the API."""
    source = 'port: int = Field(default=8000, description="Port to listen on.")'
    assert ["Port to listen on."] == list(sentences_of("setting_groups.py", source, frozenset()))
    assert [] == messages_of(source)


def test_errors_of_the_command_line_are_no_messages() -> None:
    """Nor those with a sentence of their own for pages."""
    source = 'raise ItemNotReady(f"Pass --run with {name}.")'
    assert [] == list(sentences_of("batch/commands.py", source, frozenset({"ItemNotReady"})))
    assert "ItemNotReady" in shown_errors()
    assert "DatabaseUnavailable" not in shown_errors()


@pytest.mark.parametrize("tag", sorted(LANGUAGES.keys() - {DEFAULT}))
def test_every_sentence_is_found_by_what_stands_around_its_values(tag: str) -> None:
    """None is taken for another one: each is translated with its values in their places."""
    sentences = [each for each in catalog_of(tag) if SENTENCE in each.auto_comments]
    assert len(sentences) > 250
    wrong = []
    with speaking(tag):
        for each in sentences:
            names = re.findall(r"%\((\w+)\)s", str(each.id))
            values = {name: f"v{place}" for place, name in enumerate(names)}
            if known(str(each.id) % values) != str(each.string) % values:
                wrong.append((str(each.id), known(str(each.id) % values)))
    assert [] == wrong


def catalog_of(tag: str) -> Catalog:
    """The messages of a language."""
    with (FOLDER / f"{tag}.po").open("rb") as file:
        return read_po(file, locale=tag)


@pytest.mark.usefixtures("german")
@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The file has 1,025.3 MB, more than the 20 MB that are allowed.",
         "Die Datei hat 1.025,3 MB, mehr als die erlaubten 20 MB."),
        ("This photo is 25.3 MB. The limit is 20 MB.", "Dieses Foto hat 25,3 MB. Erlaubt sind höchstens 20 MB."),
        ("There is no channel 'lok' (did you mean 'look'?); the channels are: look, 100 %.",
         "Es gibt keinen Kanal 'lok' (gemeint: 'look'?); die Kanäle sind: look, 100 %."),
        ("The item 12 is quarantined; only what needs review can be skipped.",
         "Der Artikel 12 ist im Zustand „aussortiert“; nur was zu prüfen ist, lässt sich überspringen."),
        ("The score of safe is 0.99; photos are held from 0.05.",
         "Der Wert von safe ist 0,99; ab 0,05 werden Fotos zurückgehalten."),
        ("single calls on 2 threads in 1 worker", "Einzelaufrufe auf 2 Threads in 1 Worker"),
        ("batches of up to 32 within 2.5 ms on 1 thread", "Bündel von bis zu 32 in 2,5 ms auf 1 Thread"),
        ("An event has waited for an hour for its receiver to take it.",
         "Ein Ereignis wartet seit 1 Stunde darauf, dass sein Empfänger es nimmt."),
        ("02 November 2026 differs from the month before in: Brightness, Kinds of photos.",
         "Der 2. November 2026 unterscheidet sich vom Monat davor bei: Helligkeit, Arten von Fotos."),
        ("The run planned for 02 May 2026 02:00 UTC did not begin, and photos wait for it.",
         "Der Lauf, der für den 2. Mai 2026, 02:00 UTC geplant war, hat nicht begonnen, und Fotos warten auf ihn."),
        ("The photo 7 has an appeal of 2026-11-02 13:05 UTC; there is one per photo.",
         "Zum Foto 7 gibt es einen Einspruch vom 02.11.2026, 13:05 UTC; pro Foto gibt es einen."),
        ("The photo of the item 7 was deleted by retention on 2026-11-02.",
         "Das Foto des Artikels 7 wurde am 02.11.2026 nach Ablauf der Aufbewahrungsfrist gelöscht."),
        ("There is no channel '2026-11-02'; the channels are: look.",
         "Es gibt keinen Kanal '2026-11-02'; die Kanäle sind: look."),
        (ImageTooLarge("This photo is 25.3 MB. The limit is 20 MB.").notice,
         "Dieses Foto hat 25,3 MB. Erlaubt sind höchstens 20 MB (image_too_large)."),
        (DatabaseUnavailable("postgresql://secret").notice,
         "Die Datenbank ist nicht erreichbar (database_unavailable). Das Log hat die Einzelheiten."),
        ("No such sentence of ours: 5.", "No such sentence of ours: 5."),
        ("x: " * 4_000, "x: " * 4_000),
    ],
)  # fmt: skip
def test_a_finished_sentence_is_translated_with_what_is_in_it(sentence: str, expected: str) -> None:
    """Numbers, words of ours and sentences within it; what others wrote stays, and costs no depth."""
    assert expected == known(sentence)


def test_an_english_page_shows_what_was_raised() -> None:
    """Without any look at the messages."""
    assert "Line 3: the path is empty." == known("Line 3: the path is empty.")
