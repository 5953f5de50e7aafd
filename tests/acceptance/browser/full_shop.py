"""A server whose pages are full: a simulated quarter, a run, a photo that waits for a moderator, a product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from examples.simulate_quarter import main as simulate
from tests.acceptance.batch_server import FRUIT, clear_photo, dim_photo, items_of, models_with_fruit, run_through, send
from tests.acceptance.batch_server import torn_photo as torn
from tests.acceptance.catalogue_server import PAINT
from tests.conftest import RunningServer, running_server
from tests.support.fusion import write_fusion_bundle

DAYS = 15
LONG_NAME = f"IMG_{'0' * 120}.jpg"
"""A file name without a place to break."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullShop:
    """The server, and where its pages are."""

    server: RunningServer
    paths: tuple[str, ...]

    @property
    def run(self) -> str:
        """The page of a run with photos that need review."""
        return next(path for path in self.paths if path.startswith("/console/batch/returns/"))


@contextmanager
def full_shop(root: Path, models_dir: Path) -> Iterator[FullShop]:
    """Started, filled and stopped again."""
    models = models_with_fruit(root / "models", models_dir)
    write_fusion_bundle(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPLENS_DATA_DIR", str(root / "data"))
        (root / "data").mkdir()
        assert 0 == simulate(["--days", str(DAYS)])
    held = '{"safe": {"review_at": 0.05}}'
    with running_server(root / "data", models, **FRUIT, **PAINT, channels__reviews__labels=held) as server:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            paths = tuple(_fill(client))
        yield FullShop(server=server, paths=paths)


def _fill(client: httpx.Client) -> Iterator[str]:
    """The addresses of what was made."""
    record = client.post("/predict", files={"file": (LONG_NAME, clear_photo(1))}).json()["id"]
    client.post("/feedback", json={"prediction_id": record, "label": "tench", "comment": "x" * 300}).raise_for_status()
    yield f"/console/records/{record}"
    send(client, {"clear.jpg": clear_photo(2), "dim.jpg": dim_photo(3), "dim-2.jpg": dim_photo(4), "torn.jpg": torn(5)})
    run = run_through(client)["id"]
    yield from (f"/console/batch/returns/{run}", f"/console/batch/returns/{run}?state=quarantined")
    yield from (f"/console/batch/returns/items/{items_of(client, run)[0]['id']}", f"/batch/runs/{run}/report")
    done = items_of(client, run, state="done")[0]["id"]
    client.post(f"/batch/items/{done}/label", json={"label": "apple"}).raise_for_status()
    yield "/console/models/fruit"
    form = {"customer": "c-17", "order": "A-1", "review": "r-1"}
    sent = client.post("/moderation/photos", files={"file": ("x.jpg", clear_photo(6))}, data=form).json()
    yield from (f"/console/moderation/photos/{sent['photos'][0]['id']}", "/console/moderation/customers/c-17")
    red = {"designation": "Red box", "reference": "SKU-1", "description": "red"}
    client.post("/catalogue/products", files={"file": ("x.jpg", clear_photo(7))}, data=red).raise_for_status()
    product = client.get("/catalogue/products").json()["items"][0]["id"]
    yield f"/console/catalogue/products/{product}"
