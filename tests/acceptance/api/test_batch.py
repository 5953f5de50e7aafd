"""Batches over HTTP, on a real server with real run processes: imported, classified, corrected, exported."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import httpx
import pyarrow.parquet
import pytest

from tests.acceptance.batch_server import clear_photo, dim_photo, items_of, names, run_through, send, torn_photo
from tests.conftest import RunningServer

PHOTOS = {
    "100_1.jpg": clear_photo(1),
    "100_2.jpg": clear_photo(2),
    "101_3.jpg": dim_photo(3),
    "101_4.jpg": dim_photo(4),
    "102_5.jpg": dim_photo(5),
    "102_6.jpg": torn_photo(6),
    "102_7.jpg": clear_photo(1),
}


@pytest.fixture(scope="module")
def run_id(http: httpx.Client) -> str:
    """The first run of that server, over photos of every kind."""
    send(http, PHOTOS)
    return str(run_through(http)["id"])


def test_a_run_has_the_result_of_every_photo(http: httpx.Client, run_id: str) -> None:
    """The counts add up to the imported photos; there are progress and rate."""
    run = http.get(f"/batch/runs/{run_id}").json()
    counts = {
        "waiting": 0, "processing": 0, "done": 2, "needs_review": 3, "quarantined": 1, "duplicate": 1, "dismissed": 0,
    }  # fmt: skip
    assert (7, counts) == (run["received"], run["counts"])
    assert ("finished", 6, 6, 0, 1.0) == tuple(
        run[name] for name in ("state", "planned", "settled", "left", "progress")
    )
    assert run["rate_per_s"] > 0
    assert {"name": "fruit", "version": "1.2.0"} == run["model"]
    assert ("http", "nobody", False, None) == tuple(
        run[name] for name in ("requested_by", "worker", "stalled", "failure")
    )
    assert run["heartbeat"] > 0
    assert 2 == run["labels"]["pear"]["done"]


def test_runs_are_listed_newest_first(http: httpx.Client, run_id: str) -> None:
    """Page by page."""
    send(http, {"500_1.jpg": clear_photo(5_000)})
    later = run_through(http)
    first = http.get("/batch/runs?limit=1").json()
    second = http.get(f"/batch/runs?limit=1&before={first['older']}").json()
    assert [later["id"], run_id] == [first["runs"][0]["id"], second["runs"][0]["id"]]
    assert 3 == second["runs"][0]["counts"]["needs_review"]
    assert second["older"] is None


def test_the_photos_of_a_run_are_filtered_and_paged(http: httpx.Client, run_id: str) -> None:
    """By state, by label and by the beginning of a reference; cursors lead back and forth."""
    assert {"100_1.jpg", "100_2.jpg"} == set(names(items_of(http, run_id, state="done")))
    assert {"100_1.jpg", "100_2.jpg"} <= set(names(items_of(http, run_id, label="pear")))
    assert {"102_5.jpg", "102_6.jpg", "102_7.jpg"} == set(names(items_of(http, run_id, text="102")))
    assert ["102_7.jpg"] == names(items_of(http, run_id, state="duplicate"))
    first = http.get(f"/batch/runs/{run_id}/items?limit=4").json()
    rest = http.get(f"/batch/runs/{run_id}/items?limit=4&before={first['older']}").json()
    back = http.get(f"/batch/runs/{run_id}/items?limit=4&after={rest['newer']}").json()
    assert sorted(PHOTOS) == sorted(names(first["items"] + rest["items"]))
    assert (first["items"], None, None) == (back["items"], back["newer"], rest["older"])


def test_an_item_says_what_it_is_and_why(http: httpx.Client, run_id: str) -> None:
    """References from its name, its record, and a failure with its code."""
    (torn,) = items_of(http, run_id, state="quarantined")
    assert {"item": "6", "order": "102", "reason": None} == torn["references"]
    assert "image_corrupt" == torn["failure"]["code"]
    (done, _) = items_of(http, run_id, state="done")
    assert done == http.get(f"/batch/items/{done['id']}").json()
    assert http.get(f"/predictions/{done['prediction_id']}").json()["labels"][0]["label"] == done["predicted"]
    assert done["stored_as"].startswith("returns/processed/pear/")


def test_the_photo_is_shown_in_every_size(http: httpx.Client, run_id: str) -> None:
    """Reduced ones are JPEG; the original is what was sent, and nothing in it can act."""
    (item,) = items_of(http, run_id, text="2")
    for size in ("thumbnail", "view", "original"):
        answer = http.get(f"/batch/items/{item['id']}/photo?size={size}")
        assert (200, "image/jpeg") == (answer.status_code, answer.headers["content-type"])
    assert PHOTOS["100_2.jpg"] == answer.content
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_correction_counts_at_once(http: httpx.Client, run_id: str) -> None:
    """The item is done, its photo and its record are in the new place, and the remark is kept."""
    (item,) = items_of(http, run_id, text="101", state="needs_review")[:1]
    corrected = http.post(f"/batch/items/{item['id']}/label", json={"label": "plum"}).json()
    assert ("done", "plum", item["predicted"]) == tuple(corrected[name] for name in ("state", "label", "predicted"))
    assert corrected["stored_as"].startswith("returns/processed/plum/")
    record = http.get(f"/predictions/{item['prediction_id']}").json()
    assert [("wrong", "plum")] == [(said["verdict"], said["label"]) for said in record["feedback"]]
    assert 200 == http.get(f"/predictions/{item['prediction_id']}/image?size=original").status_code
    assert corrected["id"] in [each["id"] for each in items_of(http, run_id, label="plum")]


def test_a_guess_is_confirmed(http: httpx.Client, run_id: str) -> None:
    """Without naming it."""
    (item,) = items_of(http, run_id, text="102", state="needs_review")
    confirmed = http.post(f"/batch/items/{item['id']}/label", json={"confirm": True}).json()
    assert ("done", item["predicted"]) == (confirmed["state"], confirmed["label"])


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({}, 422, "request_invalid"),
        ({"label": "pear", "confirm": True}, 422, "request_invalid"),
        ({"label": "banana"}, 422, "request_invalid"),
        ({"label": "x" * 201}, 422, "request_invalid"),
        ({"lable": "pear"}, 422, "request_invalid"),
    ],
)
def test_what_nobody_can_mean_is_refused(
    http: httpx.Client, run_id: str, said: dict[str, object], status: int, code: str
) -> None:
    """With a sentence, and nothing changes."""
    item = items_of(http, run_id)[0]
    answer = http.post(f"/batch/items/{item['id']}/label", json=said)
    assert (status, code) == (answer.status_code, answer.json()["code"])
    assert item == items_of(http, run_id)[0]


def test_a_file_that_is_broken_itself_is_not_retried_but_dismissed_or_deleted(http: httpx.Client, run_id: str) -> None:
    """And the counts of its run go with it."""
    (torn,) = items_of(http, run_id, state="quarantined")
    before = http.get(f"/batch/runs/{run_id}").json()
    again = http.post(f"/batch/items/{torn['id']}/retry")
    assert (409, "item_not_ready", False) == (again.status_code, again.json()["code"], torn["retriable"])
    dismissed = http.post(f"/batch/items/{torn['id']}/label", json={"not_usable": True}).json()
    assert ("dismissed", "not_usable", "image_corrupt") == (
        dismissed["state"], dismissed["answer"], dismissed["failure"]["code"],
    )  # fmt: skip
    now = http.get(f"/batch/runs/{run_id}").json()
    assert (before["received"], 1, 0) == (now["received"], now["counts"]["dismissed"], now["counts"]["quarantined"])
    reopened = http.post(f"/batch/items/{torn['id']}/reopen").json()
    assert ("quarantined", None) == (reopened["state"], reopened["answer"])
    deleted = http.delete(f"/batch/items/{torn['id']}/photo").json()
    assert ("dismissed", None) == (deleted["state"], deleted["stored_as"])
    assert 404 == http.get(f"/batch/items/{torn['id']}/photo?size=original").status_code


def test_an_answer_is_withdrawn_with_its_feedback(http: httpx.Client, run_id: str) -> None:
    """Neither the record nor the table of feedback has it any more; a stale second answer is refused."""
    item = next(iter(items_of(http, run_id, state="needs_review")))
    path = f"/batch/items/{item['id']}"
    answered = http.post(f"{path}/label", json={"confirm": True, "seen": item["revision"]}).json()
    assert ("done", 1) == (answered["state"], http.get("/feedback.csv").text.count(item["prediction_id"]))
    stale = http.post(f"{path}/label", json={"not_usable": True, "seen": item["revision"]})
    assert (409, "item_changed") == (stale.status_code, stale.json()["code"])
    reopened = http.post(f"{path}/reopen", json={"seen": answered["revision"]}).json()
    assert ("needs_review", item["label"], None) == (reopened["state"], reopened["label"], reopened["answer"])
    assert 0 == http.get("/feedback.csv").text.count(item["prediction_id"])
    assert [] == http.get(f"/predictions/{item['prediction_id']}").json()["feedback"]


def test_feedback_on_a_record_settles_its_item(http: httpx.Client, run_id: str) -> None:
    """One answer, whichever page it is given on."""
    item = next(iter(items_of(http, run_id, state="needs_review")))
    said = {"prediction_id": item["prediction_id"], "verdict": "right"}
    assert 201 == http.post("/feedback", json=said).status_code
    now = http.get(f"/batch/items/{item['id']}").json()
    assert ("done", "confirmed") == (now["state"], now["answer"])
    http.post(f"/batch/items/{item['id']}/reopen")


def test_people_are_told_apart_by_a_cookie(http: httpx.Client, run_id: str) -> None:
    """Without it there is nobody to look or to skip; with two of them each gets another photo."""
    wanted = [item["id"] for item in items_of(http, run_id, state="needs_review")]
    for path, body in (("/batch/looks", {"items": wanted}), (f"/batch/items/{wanted[0]}/skip", None)):
        refused = http.post(path, json=body, headers={"Cookie": "shoplens_browser=me"})
        assert (422, "request_invalid") == (refused.status_code, refused.json()["code"])
    found = [
        http.post("/batch/looks", json={"items": wanted}, headers={"Cookie": f"shoplens_browser={number:032x}"}).json()
        for number in (1, 2)
    ]
    assert [wanted[0], next(iter(wanted[1:]), None)] == [each["item"] for each in found]
    assert ([], [wanted[0]]) == (found[0]["held"], found[1]["held"])
    page = http.get(f"/console/batch/returns/{run_id}")
    assert "shoplens_browser=" in page.headers["set-cookie"]
    assert {"httponly", "samesite=strict"} <= set(page.headers["set-cookie"].lower().split("; "))


@pytest.mark.parametrize("body", [{}, {"confirm": True, "label": "x"}, {"confirm": True, "proposed": "scarf"}])
def test_an_answer_is_exactly_one(http: httpx.Client, run_id: str, body: dict[str, object]) -> None:
    """Anything else is refused with what to send."""
    item = next(iter(items_of(http, run_id)))
    refused = http.post(f"/batch/items/{item['id']}/label", json=body)
    assert (422, "request_invalid") == (refused.status_code, refused.json()["code"])


def table_of(answer: httpx.Response, format: str) -> list[dict[str, Any]]:
    """The rows of an export."""
    match format:
        case "csv":
            return list(csv.DictReader(io.StringIO(answer.text)))
        case "jsonl":
            return [json.loads(line) for line in answer.text.splitlines()]
        case _:
            rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(answer.content)).to_pylist()
            return rows


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_the_results_are_exported_as_a_file(http: httpx.Client, run_id: str, format: str) -> None:
    """The same rows in each format, as a download."""
    answer = http.get(f"/batch/runs/{run_id}/export?format={format}")
    rows = table_of(answer, format)
    here = http.get(f"/batch/runs/{run_id}").json()["counts"]
    assert sum(here.values()) == len(rows)
    assert f'attachment; filename="run-{run_id}.{format}"' == answer.headers["content-disposition"]


def test_the_report_is_one_page_that_runs_nothing(http: httpx.Client, run_id: str) -> None:
    """Its own style is allowed to it, and no script at all."""
    answer = http.get(f"/batch/runs/{run_id}/report")
    assert "text/html; charset=utf-8" == answer.headers["content-type"]
    policy = answer.headers["content-security-policy"]
    assert ("default-src 'none'" in policy, "script-src" in policy, "sandbox" in policy) == (True, False, True)
    assert "<script" not in answer.text


def test_nothing_over_http_chooses_a_path_of_the_server(http: httpx.Client) -> None:
    """Neither a source to read from nor a place to write to can be named."""
    document = http.get("/openapi.json").json()
    named = {
        parameter["name"]
        for path, operations in document["paths"].items()
        if path.startswith("/batch")
        for operation in operations.values()
        for parameter in operation.get("parameters", ())
    }
    assert {
        "run_id",
        "item_id",
        "limit",
        "before",
        "after",
        "channel",
        "state",
        "label",
        "text",
        "format",
        "size",
    } == named
    refused = http.post("/batch/ingest", json={"source": "/etc"})
    assert (422, "request_invalid") == (refused.status_code, refused.json()["code"])


UNKNOWN = "0" * 26


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/batch/runs/{UNKNOWN}"),
        ("GET", "/batch/runs/nix"),
        ("GET", f"/batch/runs/{UNKNOWN}/items"),
        ("GET", f"/batch/runs/{UNKNOWN}/export?format=csv"),
        ("GET", f"/batch/runs/{UNKNOWN}/report"),
        ("GET", f"/batch/items/{UNKNOWN}"),
        ("GET", "/batch/items/nix/photo"),
        ("GET", f"/batch/items/{UNKNOWN}/photo"),
        ("POST", f"/batch/items/{UNKNOWN}/retry"),
    ],
)
def test_what_is_not_there_is_404(http: httpx.Client, method: str, path: str) -> None:
    """As a problem with a code of its own."""
    answer = http.request(method, path)
    code = "run_not_found" if "/runs/" in path else "item_not_found"
    assert (404, code) == (answer.status_code, answer.json()["code"])
    assert "application/problem+json" == answer.headers["content-type"]


def test_photos_in_the_drop_folder_are_imported(http: httpx.Client, fruit_server: RunningServer) -> None:
    """The default folder is there; a call without a body takes what lies in it."""
    drop = fruit_server.data_dir / "drop" / "returns"
    (drop / "900_1.jpg").write_bytes(clear_photo(900))
    answer = http.post("/batch/ingest")
    assert 200 == answer.status_code
    body = answer.json()
    assert ("finished", 1, []) == (body["state"], body["counts"]["taken"], body["notes"])
    assert [] == list(drop.iterdir())


def test_each_photo_that_is_sent_has_its_own_outcome(http: httpx.Client) -> None:
    """A bad one costs only itself; names say what they belong to unless the sender does."""
    files = [
        ("file", ("800_1.jpg", clear_photo(800))),
        ("file", ("800_2.jpg", b"")),
        ("file", ("800_3.jpg", clear_photo(800))),
        ("file", ("../../etc/passwd", clear_photo(801))),
    ]
    photos = http.post("/batch/ingest", files=files, data={"reason": "too small", "item": "4711"}).json()["photos"]
    assert ["waiting", "quarantined", "duplicate", "waiting"] == [photo["item"]["state"] for photo in photos]
    assert [None, "image_missing", None, None] == [photo["code"] for photo in photos]
    assert {"item": "4711", "order": "800", "reason": "too small"} == photos[0]["item"]["references"]
    assert ".." not in photos[3]["item"]["stored_as"]


def test_a_form_without_photos_is_refused(http: httpx.Client) -> None:
    """And so is one that cannot be read."""
    none = http.post("/batch/ingest", files={"photo": b"x"})
    assert (422, "image_missing") == (none.status_code, none.json()["code"])
    broken = http.post("/batch/ingest", content=b"no form", headers={"content-type": "multipart/form-data; boundary=x"})
    assert (422, True) == (broken.status_code, broken.json()["code"] in {"request_invalid", "image_missing"})
