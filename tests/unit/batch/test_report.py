"""The morning report says what happened, proves that it adds up, and can be opened by anybody without harm."""

from __future__ import annotations

import re
from collections import defaultdict
from html.parser import HTMLParser

import pytest

from shoplens.batch.entities import References
from shoplens.batch.presenting import took
from shoplens.batch.report import MOST_PICTURES, CategoryShare, WriteReport, compare
from shoplens.batch.review import ReviewService
from shoplens.batch.run_repository import RunRepository
from shoplens.errors import RequestInvalid, RunNotFound, StorageUnavailable
from shoplens.predictions.image_store import ImageStore
from shoplens.storage import Store
from tests.conftest import colourful, jpeg_of
from tests.unit.batch.results_shop import LIMITS, Fate, Shop, needing_review, quarantined

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7*7 }}\u202egpj.jpg"


VOID = {"meta", "img", "link", "br", "base"}


class Page(HTMLParser):
    """What a reader sees, by the ids of the page's parts, and everything that could do harm."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: defaultdict[str, str] = defaultdict(str)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._path: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._path.append((tag, attributes.get("id") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._path and self._path.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, part in self._path:
            if part:
                self.texts[part] += data

    def text(self, part: str) -> str:
        """With single blanks."""
        return " ".join(self.texts[part].split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def sums(self) -> dict[str, int]:
        """The lines of the sums."""
        return {row["data-sum"] or "": int(row["data-number"] or "") for row in self.all("tr") if "data-sum" in row}


@pytest.fixture
def report(shop: Shop) -> WriteReport:
    """Over the shop, with its clock."""
    return WriteReport(shop.database, shop.store, shop.images, clock=shop.clock)


def test_the_headline_summarises_the_run(shop: Shop, report: WriteReport) -> None:
    """How many, what became of them, from when to when, how quickly, and that it adds up."""
    first = shop.arrive("a.jpg")
    for number in range(3):
        shop.arrive(f"{number}.jpg")
    shop.arrive("b.jpg", fate=needing_review("hat", 0.41))
    shop.arrive("c.jpg", fate=quarantined("image_corrupt", "It is cut off."))
    shop.refuse("d.jpg")
    shop.repeat(first, "again.jpg")
    page = Page(report.render(shop.run().id))
    assert "9 items received: 5 done, 1 needs review, 2 quarantined, 1 duplicate." == page.text("headline")
    assert re.fullmatch(
        r"From 2026-05-04 12:00 UTC to 2026-05-04 12:00 UTC, 8 s; 52 items per minute\.", page.text("when")
    )
    assert page.text("accounted").startswith("All files are accounted for.")
    assert {
        "received": 9, "duplicates": -1, "refused": -1, "in_run": 7, "done": 5, "needs_review": 1, "quarantined": 1,
        "planned": 7,
    } == page.sums()  # fmt: skip


def test_a_finished_run_stays_as_it_is_when_its_items_are_tried_again(shop: Shop, report: WriteReport) -> None:
    """What is tried again belongs to the next run; the file that failed stays a failure of the first."""
    bad = shop.arrive("bad.jpg", fate=quarantined("image_decoder_failed", "It ran out of time."))
    shop.arrive("good.jpg")
    first = shop.run()
    before = Page(report.render(first.id))
    review = ReviewService(shop.database, shop.store, labels={"returns": ()}, clock=shop.tick)
    review.retry(bad.id)
    sums = {"received": 2, "in_run": 2, "done": 1, "quarantined": 1, "planned": 2}
    waiting = Page(report.render(first.id))
    second = Page(report.render(shop.run().id))
    after = Page(report.render(first.id))
    assert [sums] * 3 == [each.sums() for each in (before, waiting, after)]
    assert before.text("headline") == waiting.text("headline") == after.text("headline")
    assert after.text("accounted").startswith("All files are accounted for.")
    assert {"received": 1, "in_run": 1, "done": 1, "planned": 1} == second.sums()


def test_a_run_that_goes_on_says_what_is_left(shop: Shop, report: WriteReport) -> None:
    """And does not claim that all is done."""
    for number in range(5):
        shop.arrive(f"{number}.jpg")
    page = Page(report.render(shop.run(limit=3, end=False).id))
    assert page.text("accounted").startswith("2 items are not processed yet.")
    assert "5 items received: 3 done, 0 need review, 0 quarantined, 2 not processed yet." == page.text("headline")


def test_a_missing_item_is_reported_first(shop: Shop, report: WriteReport) -> None:
    """A run counts its items at the start; items that are missing now are shown in red."""
    for number in range(3):
        shop.arrive(f"{number}.jpg")
    run = shop.request()
    with shop.database._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM batch_items WHERE source_name = '1.jpg'")
    page = Page(report.render(run.id))
    assert page.text("accounted").startswith("1 file is missing.")
    assert -1 == page.sums()["missing"]


def test_items_that_need_review_come_with_images_lowest_scores_first(shop: Shop, report: WriteReport) -> None:
    """With links into the console, and at most so many."""
    items = [shop.arrive(f"{n}.jpg", fate=needing_review("hat", 0.2 + n / 100)) for n in reversed(range(30))]
    page = Page(report.render(shop.run().id, server="http://here"))
    links = [each["href"] for each in page.all("a") if "/items/" in (each["href"] or "")]
    assert [f"http://here/console/batch/returns/items/{item.id}" for item in items[::-1][:24]] == links[:24]
    assert 24 == len(page.all("img"))
    assert page.text("needs_review").startswith("30 items need review The 24 with the lowest scores.")
    assert "And 6 more items" in page.text("needs_review")


def test_what_was_quarantined_is_grouped_by_reason(shop: Shop, report: WriteReport) -> None:
    """The most frequent reason first, each in words, with a picture where there is one."""
    shop.store.put("returns/thumbnails/x.jpg", jpeg_of(colourful(5, width=40, height=30)))
    for number in range(2):
        shop.arrive(f"{number}.jpg", fate=quarantined("image_unsupported", "This is an HTML page."))
    cut = quarantined("image_corrupt", "It is cut off.", thumbnail_key="returns/thumbnails/x.jpg")
    for number in range(3):
        shop.arrive(f"x{number}.jpg", fate=cut)
    page = Page(report.render(shop.run().id))
    reasons = [(each["data-reason"], each["data-count"]) for each in page.all("div") if "data-reason" in each]
    assert [("image_corrupt", "3"), ("image_unsupported", "2")] == reasons
    assert 3 == len(page.all("img"))
    assert "Damaged photo 3 It is cut off." in page.text("quarantined")
    assert "Not a photo 2 This is an HTML page." in page.text("quarantined")


def test_what_was_queued_again_is_marked_and_comes_last(shop: Shop, report: WriteReport) -> None:
    """As on the page of the run: with a link to the next attempt, after the files that still need somebody."""
    late = quarantined("image_decoder_failed", "It ran out of time.")
    retried, left = shop.arrive("retried.jpg", fate=late), shop.arrive("left.jpg", fate=late)
    run = shop.run()
    assert "ueued again" not in Page(report.render(run.id)).text("quarantined")
    again = ReviewService(shop.database, shop.store, labels={"returns": ()}, clock=shop.tick).retry(retried.id)
    page = Page(report.render(run.id, server="http://here"))
    items = [each["href"] for each in page.all("a") if "/items/" in (each["href"] or "")]
    assert [f"http://here/console/batch/returns/items/{each}" for each in (left.id, retried.id, again.id)] == items
    assert "2 It ran out of time. 1 queued again: a later run has its photo." in page.text("quarantined")
    assert 1 == page.text("quarantined").count("Queued again")


def test_categories_are_compared_with_earlier_runs(shop: Shop, report: WriteReport) -> None:
    """Highlighted if the difference is more than chance, with the method; items that need review count, too."""
    for number_of_run in range(2):
        for number in range(40):
            shop.arrive(f"{number_of_run}-{number}.jpg", fate=Fate(label="dress" if number < 30 else "hat"))
        shop.run()
    for number in range(40):
        shop.arrive(f"last-{number}.jpg", fate=Fate(label="dress") if number < 10 else needing_review("hat", 0.5))
    page = Page(report.render(shop.run().id))
    rows = {each["data-label"]: "data-unusual" in each for each in page.all("tr") if "data-label" in each}
    assert {"hat": True, "dress": True} == rows
    assert "hat more than usual 30 75.0% 25.0%" in page.text("mix")
    assert "dress less than usual 10 25.0% 75.0%" in page.text("mix")
    assert "Compared with 2 finished runs. Highlighted: shares that differ" in page.text("mix")
    assert "two-proportion z-test" in page.text("mix")


def test_the_first_run_has_no_comparison(shop: Shop, report: WriteReport) -> None:
    """And says so."""
    shop.arrive("a.jpg")
    assert "No earlier run to compare with." in Page(report.render(shop.run().id)).text("mix")


def test_the_report_has_the_slowest_items_and_the_versions(shop: Shop, report: WriteReport) -> None:
    """With the time that each took; the model and the policy that decided."""
    shop.arrive("quick.jpg", fate=Fate(work_ms=4))
    shop.arrive("slow.jpg", fate=Fate(work_ms=4_321))
    run = shop.run()
    page = Page(report.render(run.id))
    assert page.text("slowest").index("slow.jpg") < page.text("slowest").index("quick.jpg")
    assert "4,321 ms" in page.text("slowest")
    for fact in ("clothing 2.1.0", "0123456789ab", "the schedule", run.id):
        assert fact in page.text("facts")


def test_hostile_names_are_shown_and_do_nothing(shop: Shop, report: WriteReport) -> None:
    """No tag, no script, no address of elsewhere, no sign that turns the text round."""
    references = References(item=HOSTILE, order=HOSTILE, reason=HOSTILE)
    shop.arrive(HOSTILE, fate=needing_review(HOSTILE, 0.4), references=references)
    shop.arrive(f"1{HOSTILE}", fate=quarantined(HOSTILE, HOSTILE), references=references)
    shop.arrive(f"2{HOSTILE}", fate=Fate(label=HOSTILE), references=references)
    html = report.render(shop.run().id, server="http://here")
    page = Page(html)
    assert set() == {name for name, _ in page.tags} & {"script", "iframe", "object", "link", "base", "form", "embed"}
    assert [] == [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for _, attributes in page.tags:
        for name in ("href", "src"):
            assert (attributes.get(name) or "#").startswith(
                ("#", "http://here/console/batch/", "data:image/jpeg;base64,")
            )
    assert "\u202e" not in html
    assert "49gpj" not in html
    assert "<script>alert(1)</script>" in page.text("needs_review")
    assert [] == re.findall(r"url\(|@import|https?://", re.sub("http://here/console/batch", "", html))


def test_texts_without_end_do_not_make_the_page_long(shop: Shop, report: WriteReport) -> None:
    """Pictures are bounded in number and size, texts in length, categories in number; in all below two megabytes."""
    noise = [jpeg_of(colourful(n, width=900, height=900), quality=95) for n in range(4)]
    for number in range(40):
        shop.arrive(
            f"{number}{'x' * 5_000}.jpg", data=noise[0] + bytes([number]), fate=needing_review(f"label {number}", 0.4)
        )
    for number in range(80):
        shop.store.put(f"returns/thumbnails/{number}.jpg", noise[number % 4])
        bad = quarantined(f"code_{number % 8}", "y" * 5_000, thumbnail_key=f"returns/thumbnails/{number}.jpg")
        shop.arrive(f"x{number}.jpg", fate=bad)
    html = report.render(shop.run().id)
    page = Page(html)
    assert MOST_PICTURES == len(page.all("img"))
    assert len(html.encode()) < 2_000_000
    assert "x" * 200 not in html
    assert "y" * 200 not in html


def test_an_empty_run_has_a_report_too(shop: Shop, report: WriteReport) -> None:
    """Nothing came; that is a fact worth a page."""
    page = Page(report.render(shop.run().id))
    assert "0 items received: 0 done, 0 need review, 0 quarantined." == page.text("headline")
    assert page.text("accounted").startswith("All files are accounted for.")


def test_the_report_is_stored_and_can_be_written_again(shop: Shop, report: WriteReport) -> None:
    """Under a key that follows from the run; with what was corrected since, and the run remembers it."""
    item = shop.arrive("a.jpg", fate=needing_review("dress", 0.4))
    run = shop.run()
    key = report(run.id)
    before = shop.store.get(key).decode()
    ReviewService(shop.database, shop.store, labels={"returns": ("coat",)}, clock=shop.tick).label(item.id, "coat")
    assert (f"returns/reports/{run.id}.html", key) == (key, report(run.id))
    assert "1 item received: 0 done, 1 needs review" in before
    after = Page(shop.store.get(key).decode())
    assert "1 item received: 1 done, 0 need review, 0 quarantined." == after.text("headline")
    assert "Reviewed so far: 1 corrected." in after.text("when")
    with shop.database.reading() as tx:
        assert key == RunRepository(tx).get(run.id).report_key


def test_links_lead_to_the_console_that_is_named(shop: Shop, report: WriteReport) -> None:
    """A file that is sent by mail names the shop's own console; anything that could run is refused."""
    item = shop.arrive("a.jpg", fate=needing_review("dress", 0.4))
    run = shop.run()
    html = report.render(run.id, console="https://photos.example.org/console/batch/returns/")
    assert f'href="https://photos.example.org/console/batch/returns/items/{item.id}"' in html
    for address in ("javascript:alert(1)//", "/console/batch/returns", "../returns"):
        with pytest.raises(RequestInvalid, match="console"):
            report.render(run.id, console=address)


def test_a_report_is_in_the_language_of_the_settings(shop: Shop) -> None:
    """With its numbers, and not in the language of the page from which it is written."""
    shop.arrive("a.jpg", fate=needing_review("dress", 0.4))
    run = shop.run()
    german = WriteReport(shop.database, shop.store, shop.images, clock=shop.clock, language_tag="de").render(run.id)
    assert '<html lang="de">' in german
    assert "1 Artikel eingegangen: 0 fertig, 1 zu prüfen, 0 aussortiert." in german
    assert "40,0\N{NO-BREAK SPACE}%" in german
    assert "Seit dem vorigen Lauf eingegangen oder wieder eingereiht" in german


def test_a_file_has_no_dead_links(shop: Shop, report: WriteReport) -> None:
    """They lead below `public_url`; without it there are none, and the file says why."""
    item = shop.arrive("a.jpg", fate=needing_review("dress", 0.4))
    run = shop.run()
    public = WriteReport(
        shop.database, shop.store, shop.images, clock=shop.clock, public_url="https://photos.example.org/shop"
    )
    for html in (shop.store.get(public(run.id)).decode(), public.render(run.id, server="http://127.0.0.1:8000/")):
        links = {each["href"] or "" for each in Page(html).all("a")} - {"#sums"}
        base = "https://photos.example.org/shop/console/batch/returns"
        assert {base, f"{base}/{run.id}", f"{base}/items/{item.id}"} == links
        assert "public_url" not in html
    bare = shop.store.get(report(run.id)).decode()
    assert {"#sums"} == {each["href"] for each in Page(bare).all("a")}
    assert "public_url" in bare
    with pytest.raises(RunNotFound):
        report.render("nix")


class AwayStore:
    """A store whose photos cannot be reached; it counts how often it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked = 0

    def get(self, key: str) -> bytes:
        """Never answers."""
        self.asked += 1
        raise StorageUnavailable("The store is away.")

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_a_store_that_is_away_costs_the_pictures_and_not_the_report(shop: Shop) -> None:
    """It is asked once and not sixty times."""
    for number in range(5):
        shop.arrive(f"{number}.jpg", fate=needing_review("dress", 0.4))
    run = shop.run()
    away = AwayStore(shop.store)
    images = ImageStore(away, limits=LIMITS, sandbox=shop.images._sandbox)  # type: ignore[arg-type]
    page = Page(WriteReport(shop.database, shop.store, images, clock=shop.clock).render(run.id))
    assert (0, 1) == (len(page.all("img")), away.asked)
    assert page.text("needs_review").startswith("5 items need review")


# Shares of categories


def share_of(label: str, current: dict[str, int], before: list[dict[str, int]]) -> CategoryShare:
    """One category of the comparison."""
    return next(each for each in compare(current, before) if each.label == label)


def test_shares_are_of_all_classified_items_current_and_usually() -> None:
    """The average is over all items of the earlier runs; the most frequent category comes first."""
    found = compare({"dress": 30, "hat": 10}, [{"dress": 10, "hat": 10}, {"dress": 70, "hat": 10}])
    assert ["dress", "hat"] == [each.label for each in found]
    assert [0.75, 0.25] == [each.share for each in found]
    assert [0.8, 0.2] == [each.usual for each in found]


def test_the_z_value_is_that_of_two_proportions() -> None:
    """50 of 100 against 300 of 1000: pooled 350 / 1100, so z = 0.2 / 0.04885 = 4.09."""
    found = share_of("dress", {"dress": 50, "hat": 50}, [{"dress": 300, "hat": 700}])
    assert 4.0942 == pytest.approx(found.z, abs=1e-3)
    assert found.unusual


@pytest.mark.parametrize(("count", "unusual"), [(30, False), (39, False), (46, True), (15, True)])
def test_a_category_is_highlighted_only_beyond_chance(count: int, unusual: bool) -> None:
    """In either direction."""
    found = share_of("dress", {"dress": count, "hat": 100 - count}, [{"dress": 300, "hat": 700}])
    assert unusual is found.unusual


def test_few_items_are_never_highlighted() -> None:
    """Neither in the run nor in the earlier runs."""
    assert not share_of("dress", {"dress": 29}, [{"hat": 1000}]).unusual
    assert not share_of("dress", {"dress": 1000}, [{"hat": 29}]).unusual
    assert share_of("dress", {"dress": 30}, [{"hat": 1000}]).unusual


def test_runs_that_differ_among_themselves_raise_the_threshold() -> None:
    """With 100,000 items chance alone is tiny; a share that varies by ten points per run is not unusual at five."""
    swinging = [{"dress": dresses, "hat": 100_000 - dresses} for dresses in (25_000, 35_000, 28_000, 32_000)]
    steady = [{"dress": 30_000, "hat": 70_000}] * 4
    current = {"dress": 35_000, "hat": 65_000}
    assert not share_of("dress", current, swinging).unusual
    assert share_of("dress", current, steady).unusual


def test_a_missing_category_is_highlighted() -> None:
    """Its share is zero."""
    found = share_of("hat", {"dress": 500}, [{"dress": 500, "hat": 500}])
    assert (0, 0.0, 0.5, True) == (found.count, found.share, found.usual, found.unusual)


def test_without_earlier_runs_nothing_is_compared() -> None:
    """Runs without items do not count."""
    found = share_of("dress", {"dress": 500}, [{}])
    assert (None, None, False) == (found.usual, found.z, found.unusual)


def test_an_empty_run_has_shares_of_zero() -> None:
    """Without a division by zero."""
    assert [] == compare({}, [])
    assert 0.0 == share_of("dress", {}, [{"dress": 5}]).share


def test_equal_shares_have_a_z_value_of_zero() -> None:
    """Also with a variance of zero."""
    assert 0.0 == share_of("dress", {"dress": 50}, [{"dress": 100}]).z


def test_the_report_and_the_page_of_a_run_show_the_same_duration(shop: Shop, report: WriteReport) -> None:
    """Both round only from 100 seconds on."""
    for number in range(95):
        shop.arrive(f"{number}.jpg")
    run = shop.run()
    page = Page(report.render(run.id))
    assert f", {took(run)}; " in page.text("when")
    assert took(run).endswith(" s")
