"""Write the dashboard of Grafana, deploy/grafana/dashboards/shoplens.json, from tools/panels.py (`make docs`).

Where a panel lies, and all that Grafana wants beside its sentence, its unit and its queries, follows from these.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from tools.panels import ROWS, Panel
from tools.project import ROOT

FILE: Final = ROOT / "deploy" / "grafana" / "dashboards" / "shoplens.json"
COLUMNS: Final = 24
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_HEIGHTS: Final = {"timeseries": 8, "stat": 5}


def dashboard() -> dict[str, Any]:
    """What Grafana reads."""
    return {
        "uid": "shoplens",
        "title": "Shoplens",
        "description": "The jobs of a shop, the models that do them, and the processes that they run in.",
        "tags": ["shoplens"],
        "timezone": "browser",
        "editable": False,
        "schemaVersion": 39,
        "version": 2,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [_link("Console", "monitoring")],
        "annotations": {"list": []},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}
    query = 'label_values({__name__=~"shoplens_.+"}, channel)'
    yield {
        "name": "channel", "label": "Channel", "type": "query", "datasource": _SOURCE, "refresh": 2, "sort": 1,
        "query": {"query": query, "refId": "channels"}, "definition": query,
        "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip
    for name, label, value in (
        ("catalogue", "Channels of the catalogue", "catalogue.*"),
        ("returns", "Channel of the returns, for links", "returns"),
        ("console", "Address of the console", "http://127.0.0.1:8000"),
    ):
        current = {"text": value, "value": value}
        yield {"name": name, "label": label, "type": "textbox", "query": value, "current": current}


def _panels() -> Iterator[dict[str, Any]]:
    number = y = 0
    for row in ROWS:
        number += 1
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        y += 1
        x = height = 0
        for panel in row.panels:
            number += 1
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
                height = 0
            place = {"x": x, "y": y, "w": panel.width, "h": _HEIGHTS[panel.kind]}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            x, height = x + panel.width, max(height, _HEIGHTS[panel.kind])
        y += height


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0} if "dateTime" not in panel.unit else {"unit": panel.unit}
    if panel.kind == "stat":
        defaults |= {"color": {"mode": "thresholds"}, "thresholds": _thresholds(panel)}
        calcs = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        graph = "none" if "dateTime" in panel.unit else "area"
        options: dict[str, Any] = {
            "reduceOptions": calcs, "colorMode": "value", "graphMode": graph, "textMode": "auto"
        }  # fmt: skip
    else:
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = {"fillOpacity": 20 if panel.stacked else 0, "lineWidth": 1, "stacking": stacking}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "links": [] if panel.page is None else [_link("Open in the console", panel.page)],
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for at, (legend, query) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def _thresholds(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.alarm_at is not None:
        steps.append({"color": "red", "value": panel.alarm_at})
    if panel.alarm_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.alarm_below}]
    return {"mode": "absolute", "steps": steps}


def _link(title: str, page: str) -> dict[str, Any]:
    return {"title": title, "type": "link", "url": f"${{console}}/console/{page}", "targetBlank": True}


def text() -> str:
    """The file as it has to be."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{FILE.relative_to(ROOT)}: {sum(len(row.panels) for row in ROWS)} panels\n")
