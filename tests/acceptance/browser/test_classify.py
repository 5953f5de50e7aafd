"""The page Classify, as people use it."""

from __future__ import annotations

import base64
import csv
import io
import re
import shlex
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.acceptance.browser.conftest import PHONE, VisitMaker, pick, write_photo
from tests.conftest import RunningServer

DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const drag = (type) => document.body.dispatchEvent(
    new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  drag("dragover");
  const veiled = !document.getElementById("veil").hidden;
  drag("drop");
  return veiled;
}"""
PASTE = """(data) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
  const init = { clipboardData: transfer, bubbles: true, cancelable: true };
  document.body.dispatchEvent(new ClipboardEvent("paste", init));
}"""

COUNT_CLICKS = """() => {
  window.clicks = 0;
  document.getElementById("file").addEventListener("click", (event) => {
    window.clicks += 1;
    event.preventDefault();
  });
}"""


NOTE_PROGRESS = """() => {
  window.progress = [];
  new MutationObserver(() => {
    const text = document.querySelector("[data-busy]")?.textContent;
    if (text && window.progress.at(-1) !== text) window.progress.push(text);
  }).observe(document.getElementById("answers"), { childList: true, subtree: true, characterData: true });
}"""


def feedback_rows(server: RunningServer, prediction_id: str) -> list[dict[str, str]]:
    """What the export has on one prediction."""
    with urllib.request.urlopen(f"{server.url}/feedback.csv") as answer:
        rows = csv.DictReader(io.StringIO(answer.read().decode()))
        return [row for row in rows if row["prediction_id"] == prediction_id]


def prediction_id(page: Page) -> str:
    """The record that the page has just shown."""
    return (page.get_by_role("link", name="View record").get_attribute("href") or "").rsplit("/", 1)[-1]


def test_a_picked_photo_is_shown_with_its_ten_best_labels(visit: VisitMaker, photo_file: Path) -> None:
    """Preview, ten bars, the model, and the time on the server and of the round trip."""
    page = visit().page()
    pick(page, photo_file)
    expect(page.locator("#answers .label-row")).to_have_count(10)
    expect(page.locator("#preview")).to_be_visible()
    expect(page.locator("#answers .took")).to_contain_text("efficientnet-lite0-int8")
    expect(page.locator("#answers .took")).to_contain_text("round trip")
    assert page.evaluate("document.getElementById('preview').naturalWidth") == 320


def test_bars_are_as_long_as_their_scores(visit: VisitMaker, photo_file: Path) -> None:
    """The bar and the figure beside it say the same."""
    page = visit(reduced_motion="reduce").page()  # bars that grow are shorter at first
    pick(page, photo_file)
    row = page.locator("#answers .label-row").first
    score = float((row.locator(".label-score").text_content() or "").rstrip("%"))
    whole = row.locator(".bar-track").bounding_box()
    filled = row.locator(".bar-fill").bounding_box()
    assert whole
    assert filled
    assert score == pytest.approx(100 * filled["width"] / whole["width"], abs=0.3)


def test_a_photo_dropped_anywhere_on_the_page_is_classified(visit: VisitMaker, photo_file: Path) -> None:
    """The page says that it will take the drop, and takes it."""
    page = visit().page()
    veiled = page.evaluate(DROP, ["dropped.jpg", base64.b64encode(photo_file.read_bytes()).decode()])
    page.wait_for_selector("#answers .bars .label-score")
    assert veiled
    expect(page.locator("#veil")).to_be_hidden()
    expect(page.locator("[data-curl]")).to_contain_text("file=@dropped.jpg")


def test_a_pasted_photo_is_classified(visit: VisitMaker, tmp_path: Path) -> None:
    """As after copying a picture in another program."""
    page = visit().page()
    page.evaluate(PASTE, base64.b64encode(write_photo(tmp_path / "x.png").read_bytes()).decode())
    page.wait_for_selector("#answers .bars .label-score")
    expect(page.locator("#preview")).to_be_visible()


def test_several_photos_become_a_list_to_choose_from(visit: VisitMaker, tmp_path: Path) -> None:
    """Each is answered; choosing one shows its own answer."""
    page = visit().page()
    pick(page, *(write_photo(tmp_path / f"{seed}.jpg", seed) for seed in (1, 2, 3)))
    rows = page.locator("#results tbody tr")
    expect(rows).to_have_count(3)
    expect(page.locator("#results tbody tr[data-state=done]")).to_have_count(3)
    rows.nth(2).click()
    expect(page.locator("[data-curl]")).to_contain_text("file=@3.jpg")
    expect(rows.nth(2).get_by_role("button")).to_have_attribute("aria-current", "true")


def test_a_format_that_browsers_cannot_show_is_shown_by_the_server(visit: VisitMaker, tmp_path: Path) -> None:
    """A TIFF gets a place-holder first and the server's copy with the answer."""
    page = visit().page()
    pick(page, write_photo(tmp_path / "scan.tiff"))
    expect(page.locator("#preview")).to_have_attribute("src", f"/predictions/{prediction_id(page)}/image?size=view")
    expect(page.locator("#preview")).to_be_visible()


def test_another_channel_asks_again_and_shows_what_decided(visit: VisitMaker, photo_file: Path) -> None:
    """The badge comes with the score and the threshold; going back sends nothing."""
    page = visit().page()
    pick(page, photo_file)
    first = prediction_id(page)
    page.get_by_role("radio", name="Strict").check(force=True)
    expect(page.locator("#answers .badge")).to_have_text("Rejected")
    expect(page.locator("#answers .reason")).to_contain_text("(≥ 5%)")
    page.get_by_role("radio", name="General").check(force=True)
    expect(page.locator("#answers .badge")).to_have_count(0)
    assert first == prediction_id(page)


def test_an_accepted_photo_says_below_which_thresholds_it_stayed(visit: VisitMaker, photo_file: Path) -> None:
    """The channel reviews has thresholds, and a smooth pattern is harmless."""
    page = visit().page()
    page.get_by_role("radio", name="Reviews").check(force=True)
    pick(page, photo_file)
    expect(page.locator("#answers .badge")).to_have_text("Accepted")
    expect(page.locator("#answers .reason")).to_contain_text("nsfw: review ≥ 40%, reject ≥ 85%")


def test_confidence_is_shown_in_words(visit: VisitMaker, photo_file: Path) -> None:
    """A best score below 30% is marked as a guess."""
    page = visit().page()
    levels = {
        0.29: "Low confidence. Best guess:",
        0.3: "Low confidence",
        0.6: "Medium confidence",
        0.9: "High confidence",
    }
    for score, words in levels.items():
        assert words == page.evaluate("(s) => import('/static/words.js').then((w) => w.confidence(s))", score)
    pick(page, photo_file)
    best = float((page.locator("[data-best-score]").text_content() or "").rstrip("%"))
    is_guess = "Best guess" in (page.locator("[data-confidence]").text_content() or "")
    assert (best < 30) == is_guess


def test_a_file_that_is_not_a_picture_gets_an_error_and_another_try(
    visit: VisitMaker, tmp_path: Path, photo_file: Path
) -> None:
    """The server's sentence, its code, and a way on; the next photo works as ever."""
    page = visit(expected={415}).page()
    note = tmp_path / "note.txt"
    note.write_text("I am no photo.")
    page.set_input_files("#file", note)
    expect(page.get_by_role("alert")).to_contain_text("Unsupported file type")
    expect(page.get_by_role("alert")).to_contain_text("image_unsupported")
    expect(page.get_by_role("button", name="Choose another photo")).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    pick(page, photo_file)
    expect(page.locator("#answers .label-row")).to_have_count(10)


def test_an_unreachable_server_is_said_and_the_photo_is_still_there(visit: VisitMaker, photo_file: Path) -> None:
    """Once the connection is back, one click sends the same photo."""
    here = visit()
    page = here.page()
    here.context.set_offline(True)
    page.set_input_files("#file", photo_file)
    expect(page.get_by_role("alert")).to_contain_text("Can't reach the server")
    expect(page.locator("#preview")).to_be_visible()
    here.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#answers .label-row")).to_have_count(10)


def test_a_busy_server_is_waited_for(visit: VisitMaker, photo_file: Path) -> None:
    """429 with Retry-After counts down and tries again without a click."""
    page = visit(expected={429}).page()
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=429, headers={"Retry-After": "5"}, json={"detail": "full", "code": "queue_full"})

    page.route("**/predict?*", refuse_once)
    page.set_input_files("#file", photo_file)
    expect(page.locator("[data-busy]")).to_have_text(re.compile(r"^Server busy\. Retrying in [1-5] s…$"))
    expect(page.locator("#answers .label-row")).to_have_count(10)
    assert len(refused) == 1


def test_one_click_says_that_it_is_wrong(visit: VisitMaker, shop: RunningServer, photo_file: Path) -> None:
    """The row is there before anything else is asked, and an impatient second click adds none."""
    page = visit().page()
    pick(page, photo_file)
    page.get_by_role("button", name="No, incorrect").dblclick()
    expect(page.get_by_label("Correct label")).to_be_focused()
    (row,) = feedback_rows(shop, prediction_id(page))
    assert ("wrong", "") == (row["verdict"], row["right_label"])


def test_what_it_really_is_can_be_added_with_the_labels_as_suggestions(
    visit: VisitMaker, shop: RunningServer, photo_file: Path
) -> None:
    """The model's thousand labels are offered; any other text is taken, too, and never run as markup."""
    page = visit().page()
    pick(page, photo_file)
    page.get_by_role("button", name="No, incorrect").click()
    expect(page.locator("#answers datalist option")).to_have_count(1000)
    page.get_by_label("Correct label").fill("tench")
    page.get_by_label("Comment").fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Saved. It will be used for the next training.")).to_be_focused()
    expect(page.get_by_role("button", name="Send")).to_be_hidden()
    said = feedback_rows(shop, prediction_id(page))[-1]
    assert ("tench", "<img src=x onerror=alert(1)>") == (said["right_label"], said["comment"])
    page.get_by_role("link", name="View record").click()
    expect(page.locator(".remark .comment")).to_have_text("<img src=x onerror=alert(1)>")


def test_right_is_one_click_as_well(visit: VisitMaker, shop: RunningServer, photo_file: Path) -> None:
    """And it is thanked for."""
    page = visit().page()
    pick(page, photo_file)
    page.get_by_role("button", name="Yes, correct").click()
    expect(page.get_by_text("Marked as correct. Thanks!")).to_be_visible()
    assert ["right"] == [row["verdict"] for row in feedback_rows(shop, prediction_id(page))]


@pytest.mark.parametrize("name", ["photo.jpg", 'it\'s; a "test", $(id) `x` \\.jpg', "-o.jpg"])
def test_the_curl_command_can_be_pasted_whatever_the_file_is_called(
    visit: VisitMaker, tmp_path: Path, name: str
) -> None:
    """A shell splits it into the words that were meant, and curl itself sends the photo."""
    page = visit().page()
    file = write_photo(tmp_path / "some.jpg").rename(tmp_path / name)
    pick(page, file)
    command = page.locator("[data-curl]").text_content() or ""
    assert ["curl", "-F"] == shlex.split(command)[:2]
    assert 4 == len(shlex.split(command))
    quiet = command.replace("curl", "curl -s", 1)
    answer = subprocess.run(["sh", "-c", quiet], cwd=tmp_path, capture_output=True, check=True)
    assert b'"channel":"look"' in answer.stdout


def test_the_curl_command_is_copied_by_a_click(visit: VisitMaker, photo_file: Path) -> None:
    """The button says that it did."""
    page = visit(permissions=["clipboard-read", "clipboard-write"]).page()
    pick(page, photo_file)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.locator("[data-curl]").text_content() == page.evaluate("navigator.clipboard.readText()")


def test_the_whole_journey_works_with_the_keyboard_alone(
    visit: VisitMaker, shop: RunningServer, photo_file: Path
) -> None:
    """Choose, read, object, explain: Tab, Enter and Space are enough, and the focus can always be seen."""
    page = visit().page()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    tab_until(page, "#file")
    page.evaluate(COUNT_CLICKS)
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert 2 == page.evaluate("window.clicks")  # both open the dialog, which belongs to the browser
    pick(page, photo_file)
    expect(page.get_by_role("status").first).to_contain_text("%")
    tab_until(page, "#answers [data-verdict=wrong]")
    assert "none" != page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Correct label")).to_be_focused()
    page.keyboard.type("tench")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Saved. It will be used for the next training.")).to_be_focused()
    assert "tench" == feedback_rows(shop, prediction_id(page))[-1]["right_label"]


def tab_until(page: Page, selector: str) -> None:
    """Press Tab until `selector` has the focus; twenty times at most."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab never reaches {selector}")


def test_a_phone_offers_its_camera(visit: VisitMaker, photo_file: Path) -> None:
    """Beside choosing; with a mouse it is not shown."""
    page = visit(**PHONE).page()
    expect(page.locator("label[for=camera]")).to_be_visible()
    page.set_input_files("#camera", photo_file)
    expect(page.locator("#answers .label-row")).to_have_count(10)
    expect(visit().page().locator("label[for=camera]")).to_be_hidden()


def test_without_a_script_a_plain_form_leads_to_the_record(visit: VisitMaker, photo_file: Path) -> None:
    """Post, redirect, get; the feedback form works as a plain form, too."""
    page = visit(java_script_enabled=False).page()
    page.set_input_files("#file", photo_file)
    page.get_by_role("button", name="Classify").click()
    expect(page.locator(".bars .label-row")).to_have_count(10)
    assert "/console/records/" in page.url
    page.get_by_label("Correct label").fill("a pattern")
    page.get_by_label("Correct label").press("Enter")
    expect(page.locator(".remark")).to_contain_text("Should be: a pattern")


def test_without_a_script_errors_are_sentences_on_the_page(visit: VisitMaker, tmp_path: Path) -> None:
    """The status is the API's, the page is for people."""
    page = visit(expected={415}, java_script_enabled=False).page()
    note = tmp_path / "note.txt"
    note.write_text("I am no photo.")
    page.set_input_files("#file", note)
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("alert")).to_contain_text("Unsupported file type")
    expect(page.locator("#file")).to_be_visible()


@contextmanager
def slow_line(server: RunningServer, *, bytes_per_s: int) -> Iterator[RunningServer]:
    """The same server behind a line that takes so much of what a client sends."""
    host, port = server.url.removeprefix("http://").split(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def carry(source: socket.socket, target: socket.socket, pause_s: float) -> None:
        with suppress(OSError):
            while piece := source.recv(16_384):
                target.sendall(piece)
                time.sleep(pause_s * len(piece))
            target.shutdown(socket.SHUT_WR)

    def connect(near: socket.socket) -> None:
        with near, socket.create_connection((host, int(port))) as far:
            sending = threading.Thread(target=carry, args=(near, far, 1 / bytes_per_s))
            sending.start()
            carry(far, near, 0.0)
            with suppress(OSError):  # closing it would not end the wait of the other thread
                near.shutdown(socket.SHUT_RDWR)
            sending.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                connections.append(threading.Thread(target=connect, args=(listener.accept()[0],)))
                connections[-1].start()

    connections = [threading.Thread(target=accept)]
    connections[0].start()
    try:
        yield replace(server, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in connections:
            each.join(30)


def test_an_upload_over_a_slow_line_shows_its_progress_and_succeeds(
    visit: VisitMaker, shop: RunningServer, tmp_path: Path
) -> None:
    """It takes longer than any pause that the server allows, and the page says how far it is."""
    pixels = np.random.default_rng(3).integers(0, 256, (2_000, 2_600, 3), np.uint8)
    photo = tmp_path / "slow.jpg"
    Image.fromarray(pixels).save(photo, quality=95)
    assert photo.stat().st_size > 6_000_000
    with slow_line(shop, bytes_per_s=500_000) as line:
        page = visit(at=line).page("/")
        page.evaluate(NOTE_PROGRESS)
        pick(page, photo)
        expect(page.get_by_role("link", name="View record")).to_be_visible()
        shown = page.evaluate("window.progress")
    shares = [int(share) for share in re.findall(r"Uploading (\d+)%", " ".join(shown))]
    # The first megabytes go into the buffers of both kernels at once.
    assert shares
    assert min(shares) < 100
    assert sorted(shares) == shares
    assert shown[-1] == "Classifying…"
