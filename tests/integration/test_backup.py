"""Back up a shop that is at work, destroy it, restore it: it gives the same answers, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest

from examples.simulate_returns import drawn_photos, simulate
from servers.postgres import fresh_database, postgres_program
from servers.seaweed import S3Place
from shoplens.db import upgrade
from shoplens.db.sqlite import driver as sqlite3
from shoplens.errors import DatabaseUnavailable, Misconfigured
from shoplens.platform.backup import Copied, back_up, copy_blobs, copy_database, restore, restore_database
from shoplens.settings import Settings
from shoplens.storage import Store, open_store
from tests.commands import run_command
from tests.conftest import RunningServer, colourful, jpeg_of, running_server

DRAWN = 8
OLD = 400


@dataclass(frozen=True, kw_only=True)
class Shop:
    """An installation: its folders, and the settings that say where rows and photos are."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Where the embedded database and the photos are."""
        return self.root / "data"

    @property
    def models(self) -> Path:
        """Its models."""
        return self.root / "models"

    def run(self, *words: str) -> str:
        """What a command says; it must succeed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
        environment |= {"SHOPLENS_DATA_DIR": str(self.data), "SHOPLENS_MODELS_DIR": str(self.models)}
        environment |= {f"SHOPLENS_{name.upper()}": value for name, value in self.settings.items()}
        done = run_command(*words, environment=environment, folder=self.root.parent, timeout_s=200)
        assert (0, "") == (done.returncode, done.stderr if done.returncode else "")
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[RunningServer]:
        """Its server."""
        with running_server(self.data, self.models, **self.settings) as server:
            yield server

    def destroy(self) -> None:
        """Nothing of it is left on this machine."""
        shutil.rmtree(self.root)


@pytest.fixture
def shop(tmp_path: Path, models_dir: Path) -> Shop:
    """The embedded default: SQLite and a folder."""
    made = Shop(root=tmp_path / "shop")
    shutil.copytree(models_dir, made.models)
    return made


def live_a_day(shop: Shop, url: str) -> None:
    """Classify photos with feedback, import and run a batch, and correct one item."""
    with httpx.Client(base_url=url, timeout=30) as client:
        for number, channel in enumerate(("look", "look", "reviews", "returns")):
            sent = client.post(f"/predict?channel={channel}", files={"file": jpeg_of(colourful(number))}).json()
            verdict = {"prediction_id": sent["id"], "verdict": "right"}
            assert 201 == client.post("/feedback", json=verdict).status_code
        now = datetime.now(UTC).astimezone()
        simulate(drawn_photos(DRAWN, 5), shop.data / "drop" / "returns", count=DRAWN, seed=5, messy=True, now=now)
        shop.run("registry", "publish", "opennsfw", "--why", "a test")
        (version,) = json.loads(shop.run("registry", "list", "opennsfw", "--json"))[0]["versions"]
        shop.run("registry", "promote", f"opennsfw@{version['version']}", "--why", "a test")
        shop.run("batch", "ingest")
        shop.run("batch", "run")
        (run,) = client.get("/batch/runs").json()["runs"]
        items = client.get(f"/batch/runs/{run['id']}/items?state=needs_review").json()["items"]
        assert 200 == client.post(f"/batch/items/{items[0]['id']}/label", json={"label": "dress"}).status_code


def answers(url: str) -> dict[str, bytes]:
    """Everything that can be asked and does not change with time: records, items, photos, tables, the report."""
    with httpx.Client(base_url=url, timeout=30) as client:
        paths = ["/predictions?limit=100", "/predictions.csv", "/feedback.csv", "/models"]
        paths += ["/registry/opennsfw/history"]
        records = client.get("/predictions?limit=100").json()["items"]
        paths += [f"/predictions/{record['id']}" for record in records]
        paths += [f"/predictions/{each['id']}/image?size={size}" for each in records for size in ("original", "view")]
        (run,) = client.get("/batch/runs").json()["runs"]
        base = f"/batch/runs/{run['id']}"
        items = client.get(f"{base}/items?limit=100").json()["items"]
        paths += [f"{base}/items?limit=100", *(f"{base}/export?format={each}" for each in ("csv", "jsonl", "parquet"))]
        paths += [f"/batch/items/{item['id']}" for item in items]
        paths += [f"/batch/items/{item['id']}/photo?size=original" for item in items]
        return {path: _content(client.get(path)) for path in paths}


def _content(answer: httpx.Response) -> bytes:
    """The body; of a refusal what it says, without the number of the request."""
    if answer.is_success:
        return answer.content
    refused: dict[str, Any] = answer.json()
    return json.dumps({name: refused[name] for name in ("status", "code", "detail")}).encode()


def test_an_embedded_shop_comes_back(shop: Shop, tmp_path: Path) -> None:
    """Backed up while it serves, then all its folders are removed."""
    with shop.serving() as server:
        live_a_day(shop, server.url)
        before = answers(server.url)
        said = shop.run("backup", str(tmp_path / "backup"))
        assert "Copied the database" in said
    shop.destroy()
    shop.run("restore", str(tmp_path / "backup"))
    with shop.serving() as server:
        assert before == answers(server.url)
    assert DRAWN < len(before)


def test_a_shop_on_postgres_and_s3_comes_back(
    shop: Shop,
    tmp_path: Path,
    postgres_url: str,
    s3_server: S3Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows by PostgreSQL's own tools, between two rounds of photos; bucket and database are destroyed."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    folder, dump = str(tmp_path / "backup"), tmp_path / "rows.dump"
    place = s3_server.fresh()
    with fresh_database(postgres_url) as database:
        elsewhere = Shop(root=shop.root, settings={"database_url": database, "storage_url": place.url})
        upgrade(database)
        with elsewhere.serving() as server:
            live_a_day(elsewhere, server.url)
            before = answers(server.url)
            assert "run pg_dump now" in elsewhere.run("backup", folder)
            postgres("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={database}")
            assert "Copied 0 files" in elsewhere.run("backup", folder)
    elsewhere.destroy()
    empty(place)
    with fresh_database(postgres_url) as database:
        again = Shop(root=shop.root, settings={"database_url": database, "storage_url": s3_server.fresh().url})
        again.run("restore", folder)
        postgres("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={database}", str(dump))
        with again.serving() as server:
            assert before == answers(server.url)


def postgres(program: str, *words: str) -> None:
    """Run one of PostgreSQL's tools."""
    done = subprocess.run([str(postgres_program(program)), *words], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def empty(place: S3Place) -> None:
    """Remove every object below a prefix."""
    store = place.store()
    for page in obstore.list(store):
        obstore.delete(store, [each["path"] for each in page])


def test_a_backup_takes_what_comes_and_what_is_moved_meanwhile(tmp_path: Path) -> None:
    """Each row of the copy has its photo in the copy, at its old or its new key."""
    source, target = (open_store((tmp_path / name).as_uri()) for name in ("source", "target"))
    rows, copy = tmp_path / "rows.db", tmp_path / "copy.db"
    with closing(_autocommit(rows)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE photos (key TEXT, target TEXT)")
        for number in range(OLD):
            bring(made, source, f"incoming/{number}")
    stop = threading.Event()
    working = threading.Thread(target=keep_working, args=(rows, source, stop))
    working.start()
    try:
        copy_blobs(source, target)
        copy_database(rows, copy)
        time.sleep(0.2)
        copy_blobs(source, target)
    finally:
        stop.set()
        working.join()
    kept = set(target.list(""))
    assert [] == [places for places in wanted(copy) if not kept & places]
    assert OLD < len(wanted(copy)) < len(wanted(rows))
    assert {"done", "incoming"} == {key.partition("/")[0] for places in wanted(copy) for key in places}


def _autocommit(rows: Path) -> Any:
    return sqlite3.connect(rows, isolation_level=None)


def bring(connection: Any, source: Store, key: str) -> None:
    """A photo, then its row."""
    source.put(key, key.encode())
    connection.execute("INSERT INTO photos VALUES (?, NULL)", (key,))


def keep_working(rows: Path, source: Store, stop: threading.Event) -> None:
    """New photos come, and old ones go: the row says where, the photo is moved, the row says that it is there."""
    with closing(_autocommit(rows)) as connection:
        for number in range(1_000_000):
            if stop.is_set():
                return
            bring(connection, source, f"incoming/new-{number}")
            if number >= OLD:
                continue
            old, new = f"incoming/{number}", f"done/{number}"
            connection.execute("UPDATE photos SET target = ? WHERE key = ?", (new, old))
            source.move(old, new, durable=False)
            connection.execute("UPDATE photos SET key = target, target = NULL WHERE key = ?", (old,))


def wanted(rows: Path) -> list[set[str]]:
    """The places that each row names."""
    with closing(sqlite3.connect(rows)) as connection:
        return [{key for key in row if key} for row in connection.execute("SELECT key, target FROM photos")]


@pytest.fixture
def store(tmp_path: Path) -> Callable[[str], Store]:
    """Local stores by name."""
    return lambda name: open_store((tmp_path / name).as_uri())


def test_a_second_backup_copies_what_is_new(store: Callable[[str], Store]) -> None:
    """Reports are copied every time, because they change under the same name; health probes are not copied."""
    source, target = store("source"), store("target")
    source.put("images/a", b"one")
    source.put("returns/reports/r.html", b"old")
    source.check()
    assert Copied(files=2, byte_count=6, known=0) == copy_blobs(source, target)
    source.put("images/b", b"three")
    source.delete("returns/reports/r.html")
    source.put("returns/reports/r.html", b"new")
    assert Copied(files=2, byte_count=8, known=1) == copy_blobs(source, target)
    assert b"new" == target.get("returns/reports/r.html")
    assert {"images/a", "images/b", "returns/reports/r.html"} == set(target.list(""))


def test_a_restore_writes_over_nothing(tmp_path: Path, database_file: Path) -> None:
    """A database that is there stays, and so does the journal of one that was killed."""
    copy = tmp_path / "copy.db"
    assert copy_database(database_file, copy) == copy.stat().st_size
    with pytest.raises(DatabaseUnavailable, match="nothing is written over it"):
        restore_database(copy, database_file)
    place = tmp_path / "new" / "shoplens.db"
    place.parent.mkdir()
    journal = place.with_name("shoplens.db-wal")
    journal.write_bytes(b"of another one")
    with pytest.raises(DatabaseUnavailable, match="-wal exists"):
        restore_database(copy, place)
    journal.unlink()
    restore_database(copy, place)
    assert ["shoplens.db"] == [path.name for path in place.parent.iterdir()]


@pytest.mark.parametrize("content", [b"", b"no database at all, but text" * 100])
def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """And nothing is left of the attempt."""
    odd = tmp_path / "odd.db"
    with pytest.raises(DatabaseUnavailable, match="There is no"):
        copy_database(odd, tmp_path / "copy.db")
    odd.write_bytes(content)
    if content:
        with pytest.raises(DatabaseUnavailable, match="could not be copied"):
            copy_database(odd, tmp_path / "copy.db")
        assert ["odd.db"] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_that_is_no_backup_is_refused(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(Misconfigured, match="is no backup"):
        restore(make_settings(), tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_restore_where_a_shop_is_at_work_changes_nothing(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """The error comes before the first photo is copied."""
    settings = make_settings()
    settings.data_dir.mkdir()
    upgrade(settings.effective_database_url)
    back_up(settings, tmp_path / "backup")
    open_store((tmp_path / "backup" / "photos").as_uri()).put("images/a", b"a photo")
    with pytest.raises(DatabaseUnavailable, match="nothing is written over it"):
        restore(settings, tmp_path / "backup")
    assert [] == list(open_store(settings.effective_storage_url).list(""))
