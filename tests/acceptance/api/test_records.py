"""Records over HTTP: pages, filters, exports, models, health and metrics."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from shoplens.platform.server import Platform
from shoplens.settings import Settings
from tests.conftest import client_of, colourful, jpeg_of


async def fill(client: httpx.AsyncClient, count: int, channel: str = "look") -> list[str]:
    """Make predictions; their ids, newest first."""
    ids = []
    for seed in range(count):
        answer = await client.post(f"/predict?channel={channel}", content=jpeg_of(colourful(seed)))
        ids.append(answer.json()["id"])
    return ids[::-1]


async def test_pages_go_back_and_forth_without_gaps(client: httpx.AsyncClient) -> None:
    """Newest first; the cursors lead to the neighbours."""
    ids = await fill(client, 7)
    first = (await client.get("/predictions?limit=3")).json()
    second = (await client.get(f"/predictions?limit=3&before={first['older']}")).json()
    third = (await client.get(f"/predictions?limit=3&before={second['older']}")).json()
    back = (await client.get(f"/predictions?limit=3&after={second['newer']}")).json()
    assert ids == [item["id"] for page in (first, second, third) for item in page["items"]]
    assert first["newer"] is None
    assert third["older"] is None
    assert first["items"] == back["items"]
    assert back["newer"] is None


async def test_filters_combine(client: httpx.AsyncClient) -> None:
    """Channel, label, decision and time."""
    looks = await fill(client, 3)
    reviews = await fill(client, 2, "reviews")
    record = (await client.get(f"/predictions/{looks[0]}")).json()
    label = record["labels"][0]["label"]

    async def ids(query: str) -> list[str]:
        answer = await client.get(f"/predictions?{query}")
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert reviews == await ids("channel=reviews")
    assert looks[0] in await ids(f"channel=look&label={label}")
    assert reviews + looks == await ids("decision=accept")
    assert [] == await ids("decision=reject")
    assert [] == await ids(f"since={later}")
    assert reviews + looks == await ids(f"until={later}")


@pytest.mark.parametrize("query", ["limit=0", "limit=999", "before=nix", "decision=maybe", "since=yesterday"])
async def test_bad_filters_are_refused(busy_client: httpx.AsyncClient, query: str) -> None:
    """With a sentence, not with an empty page."""
    answer = await busy_client.get(f"/predictions?{query}")
    assert (422, "request_invalid") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("path", ["/predictions/nix", f"/predictions/{'0' * 26}", f"/predictions/{'0' * 26}/image"])
async def test_an_unknown_prediction_is_404(busy_client: httpx.AsyncClient, path: str) -> None:
    """Whether its id could be one or not."""
    answer = await busy_client.get(path)
    assert (404, "prediction_not_found") == (answer.status_code, answer.json()["code"])


async def test_the_export_has_every_record_that_matches(client: httpx.AsyncClient) -> None:
    """As CSV with a header, newest first."""
    await fill(client, 2, "reviews")
    ids = await fill(client, 4)
    answer = await client.get("/predictions.csv?channel=look")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert ids == [row["id"] for row in rows]
    assert "attachment" in answer.headers["content-disposition"]


async def test_the_models_are_listed_with_how_they_are_served(busy_client: httpx.AsyncClient) -> None:
    """The served ones first."""
    models = (await busy_client.get("/models")).json()
    served = {model["name"]: model for model in models if model["served"]}
    assert {"clothing", "efficientnet-lite0-int8", "opennsfw", "starter-catalogue"} == set(served)
    assert ["reviews"] == served["opennsfw"]["channels"]
    assert "single calls" in served["opennsfw"]["batching"]
    assert not models[-1]["served"]


async def test_a_healthy_server_is_live_and_ready(busy_client: httpx.AsyncClient) -> None:
    """With each part named."""
    assert 200 == (await busy_client.get("/health/live")).status_code
    ready = await busy_client.get("/health/ready")
    assert (200, {"engine": "ok", "database": "ok", "storage": "ok"}) == (ready.status_code, ready.json()["parts"])


async def test_an_unreachable_store_fails_readiness_and_the_request(
    make_settings: Callable[..., Settings], make_platform: Callable[..., Platform]
) -> None:
    """A photo that could not be kept is not answered as if it were."""
    platform = make_platform()
    blobs = make_settings().data_dir / "blobs"
    async with client_of(platform) as client:
        assert 200 == (await client.post("/predict", content=jpeg_of(colourful(1)))).status_code
        shutil.rmtree(blobs)
        blobs.write_text("a file where the directory was")
        ready = await client.get("/health/ready")
        answer = await client.post("/predict", content=jpeg_of(colourful(2)))
    assert 503 == ready.status_code
    assert "The photo store is unavailable." == ready.json()["parts"]["storage"]
    assert str(blobs) not in ready.text + answer.text
    assert (503, "storage_unusable") == (answer.status_code, answer.json()["code"])
    assert "retry-after" in answer.headers


async def test_the_metrics_have_the_names_that_dashboards_use(client: httpx.AsyncClient) -> None:
    """Counted by status, with a histogram of the time."""
    await client.post("/predict", content=jpeg_of(colourful(1)))
    await client.post("/predict", content=b"<html>")
    text = (await client.get("/metrics")).text
    assert 'image_classifier_predictions_total{status="200"} 1.0' in text
    assert 'image_classifier_predictions_total{status="415"} 1.0' in text
    assert "image_classifier_prediction_seconds_count 1.0" in text
    assert 'shoplens_failures_total{code="image_unsupported"} 1.0' in text
    assert 'shoplens_predictions_total{channel="look",model="efficientnet-lite0-int8",outcome="accept"} 1.0' in text
    assert "shoplens_queue_length 0.0" in text
    for stage in ("queue", "pixels", "inference", "write"):
        assert f'shoplens_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert 'shoplens_batch_size_count{model="efficientnet-lite0-int8"}' in text


async def test_every_answer_carries_its_id_and_the_security_headers(busy_client: httpx.AsyncClient) -> None:
    """A harmless id of the caller is taken over, any other is replaced."""
    own = await busy_client.get("/models", headers={"x-request-id": "order-4711"})
    forged = await busy_client.get("/models", headers={"x-request-id": "x" * 65})
    assert "order-4711" == own.headers["x-request-id"]
    assert 16 == len(forged.headers["x-request-id"])
    assert "default-src 'none'" in own.headers["content-security-policy"]
    assert "nosniff" == own.headers["x-content-type-options"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"origin": "http://127.0.0.1@evil.example"},
        {"origin": "file://127.0.0.1"},
        {"origin": "https://127.0.0.1:8000", "host": "127.0.0.1"},
        {"origin": "http://127.0.0.1", "sec-fetch-site": "cross-site"},
    ],
)
async def test_other_hosts_and_other_sites_are_turned_away(
    busy_client: httpx.AsyncClient, photo: bytes, headers: dict[str, str]
) -> None:
    """DNS rebinding and pages of other sites cannot make a visitor's browser fill the database."""
    answer = await busy_client.post("/predict", content=photo, headers=headers)
    assert (403, "request_forbidden") == (answer.status_code, answer.json()["code"])


async def test_the_own_page_and_plain_programs_are_let_in(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """Browsers say same-origin or name the origin, programs say nothing; a proxy may have ended TLS."""
    for headers in (
        {"sec-fetch-site": "same-origin"},
        {},
        {"host": "localhost:8000"},
        {"host": "[::1]:8000"},
        {"origin": "http://127.0.0.1"},
        {"origin": "HTTP://127.0.0.1:80"},
        {"origin": "https://localhost", "host": "localhost"},
        {"origin": "https://localhost", "host": "localhost:443"},
        {"origin": "http://[::1]:8000", "host": "[::1]:8000", "sec-fetch-site": "same-origin"},
    ):
        assert 200 == (await busy_client.post("/predict", content=photo, headers=headers)).status_code


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(busy_client: httpx.AsyncClient) -> None:
    """One form of error everywhere."""
    missing, wrong = await busy_client.get("/nix"), await busy_client.get("/predict")
    assert (404, "not_found") == (missing.status_code, missing.json()["code"])
    assert (405, "method_not_allowed") == (wrong.status_code, wrong.json()["code"])


@pytest.mark.parametrize("size", ["thumbnail", "view"])
async def test_a_photo_is_kept_by_browsers_for_minutes_only(
    busy_client: httpx.AsyncClient, photo: bytes, size: str
) -> None:
    """And by nothing between; a browser that has it asks whether it is still the same."""
    record = (await busy_client.post("/predict", content=photo)).json()
    address = f"/predictions/{record['id']}/image?size={size}"
    first = await busy_client.get(address)
    again = await busy_client.get(address, headers={"if-none-match": first.headers["etag"]})
    other = await busy_client.get(address, headers={"if-none-match": '"another"'})
    assert {"private, max-age=300"} == {each.headers["cache-control"] for each in (first, again, other)}
    assert [200, 304, 200] == [each.status_code for each in (first, again, other)]
    assert [first.content, b"", first.content] == [each.content for each in (first, again, other)]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
@pytest.mark.parametrize("place", ["/predictions", "/predictions.csv", "/audit", "/audit.csv"])
@pytest.mark.parametrize("name", ["since", "until"])
async def test_a_time_beyond_the_calendar_is_refused(
    busy_client: httpx.AsyncClient, place: str, name: str, moment: str
) -> None:
    """In UTC it would be in the year 0 or 10000, which no database has."""
    answer = await busy_client.get(place, params={name: moment})
    assert (422, "request_invalid") == (answer.status_code, answer.json()["code"])
    assert f"query.{name}: In UTC this time is not within the years 1 to 9999." in answer.json()["detail"]


async def test_a_key_cannot_end_beyond_the_calendar(busy_client: httpx.AsyncClient) -> None:
    """Nor can a body name a time without its zone."""
    body = {"name": "form", "scopes": ["predict"]}
    for moment, sentence in (("9999-12-31T23:59:59-01:00", "years 1 to 9999"), ("2030-01-01T00:00:00", "timezone")):
        answer = await busy_client.post("/keys", json={**body, "expires_at": moment})
        assert (422, True) == (answer.status_code, sentence in answer.json()["detail"])


@pytest.mark.parametrize("place", ["/console/records", "/console/audit"])
async def test_pages_take_every_day_of_the_calendar(busy_client: httpx.AsyncClient, place: str) -> None:
    """Or say that one is not a date."""
    for moment in ("0001-01-01", "0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31"):
        for name in ("since", "until"):
            answer = await busy_client.get(place, params={name: moment})
            assert answer.status_code in (200, 422), (moment, name)
            assert 200 == answer.status_code or "is not a date" in answer.text


async def test_records_are_searched_counted_and_exported_by_text(client: httpx.AsyncClient) -> None:
    """The same records on the page, in the API and in the export."""
    for name in ("IMG_1.jpg", "img_2.jpg", "other.jpg"):
        await client.post("/predict", files={"file": (name, jpeg_of(colourful(len(name))))})
    found = (await client.get("/predictions?text=Img_")).json()
    page = await client.get("/console/records?text=img_", headers={"accept": "text/html"})
    exported = list(csv.DictReader(io.StringIO((await client.get("/predictions.csv?text=img_")).text)))

    names = ["img_2.jpg", "IMG_1.jpg"]
    assert (names, 2, True) == (
        [item["file_name"] for item in found["items"]], found["total"], found["total_is_exact"],
    )  # fmt: skip
    assert names == [row["file_name"] for row in exported]
    assert ("2 records" in page.text, "other.jpg" in page.text) == (True, False)
    assert 422 == (await client.get("/predictions?text=" + "x" * 201)).status_code


async def test_records_are_deleted_after_a_question(client: httpx.AsyncClient) -> None:
    """By selection and by a filter; what was not confirmed stays, and the answer says what happened."""
    ids = await fill(client, 5)
    html = {"accept": "text/html"}
    nothing = await client.post("/console/records/delete", data={"what": "selected"}, headers=html)
    asked = await client.post("/console/records/delete", data={"what": "selected", "id": ids[:2]}, headers=html)
    assert (422, 200, 5) == (
        nothing.status_code,
        asked.status_code,
        len((await client.get("/predictions")).json()["items"]),
    )
    assert "Delete 2 records?" in asked.text

    form = {"id": ids[:2], "newest": ids[0]}
    done = await client.post("/console/records/delete/confirmed", data=form, headers=html)
    said = await client.get(done.headers["location"], headers=html)
    assert (303, "2 records deleted." in said.text) == (done.status_code, True)
    assert ids[2:] == [item["id"] for item in (await client.get("/predictions")).json()["items"]]
    assert 404 == (await client.get(f"/predictions/{ids[0]}/image")).status_code

    all_of_it = {"query": "?channel=look", "newest": ids[3]}
    await client.post("/console/records/delete/confirmed", data=all_of_it, headers=html)
    assert [ids[2]] == [item["id"] for item in (await client.get("/predictions")).json()["items"]]


async def test_a_view_is_saved_shown_and_removed(client: httpx.AsyncClient) -> None:
    """Its address is the filter."""
    html = {"accept": "text/html"}
    await fill(client, 1)
    saved = await client.post(
        "/console/records/views", data={"name": "Doubtful <b>", "query": "?decision=review&junk=1"}, headers=html
    )
    shown = (await client.get("/console/records", headers=html)).text
    assert "/console/records?decision=review" == saved.headers["location"]
    assert ('href="/console/records?decision=review"' in shown, "Doubtful &lt;b&gt;" in shown) == (True, True)
    address = shown.split('action="/console/records/views/')[1].split('"')[0]
    await client.post(f"/console/records/views/{address}", headers=html)
    assert "Doubtful" not in (await client.get("/console/records", headers=html)).text


async def test_a_channel_without_thresholds_says_that_nothing_was_checked(client: httpx.AsyncClient) -> None:
    """In place of a tick beside a guess."""
    (guess,) = await fill(client, 1)
    text = (await client.get(f"/console/records/{guess}", headers={"accept": "text/html"})).text
    assert "Accepted without a check: this channel has no thresholds" in text
    assert 'class="badge" data-outcome="accept"' not in text


async def test_the_page_of_a_record_leads_to_its_neighbours_and_to_similar_photos(client: httpx.AsyncClient) -> None:
    """Within the filter; the same file again is named so."""
    ids = await fill(client, 3)
    again = (await client.post("/predict", content=jpeg_of(colourful(1)))).json()["id"]
    text = (await client.get(f"/console/records/{ids[1]}?channel=look", headers={"accept": "text/html"})).text
    assert f'rel="prev" href="/console/records/{ids[0]}?channel=look"' in text
    assert f'rel="next" href="/console/records/{ids[2]}?channel=look"' in text
    assert (f'<li><a href="/console/records/{again}">' in text, "same file" in text) == (True, True)
