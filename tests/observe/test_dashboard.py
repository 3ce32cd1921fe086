"""The Grafana dashboard asks for what ``/metrics`` really exports: metrics, labels and values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.layers.adaptive import Adaptive
from dspy_live.layers.limit import Limit
from dspy_live.layers.shed import Shed
from dspy_live.observe.metrics import Metrics
from dspy_live.runtime.books.account import Account

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "docs" / "dashboards" / "dspy-live.json"
GUIDE = ROOT / "docs" / "guides" / "observability.md"


class Selector(NamedTuple):
    """A metric in a query: ``name{label=~"value"}``."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]

    def fits(self, name: str, labels: dict[str, str]) -> bool:
        return name == self.name and all(_fits(labels.get(label), how, value) for label, how, value in self.matchers)


def _fits(found: str | None, how: str, value: str) -> bool:
    if found is None:
        return False  # a query for a label that isn't there finds nothing
    same = re.fullmatch(value, found) is not None if "~" in how else found == value
    return same is not how.startswith("!")


def selectors(query: str) -> list[Selector]:
    query = re.sub(r"\$(program|model)", ".*", query)
    found = re.findall(r"\b(dspy_live_\w+)(?:\{([^}]*)\})?", query)
    return [
        Selector(name, tuple(re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers))) for name, matchers in found
    ]


def queries() -> list[tuple[str, dict[str, Any]]]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [
        (f"{panel['title']}: {target['expr']}", target)
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


QUERIES = queries()


def exported() -> list[tuple[str, dict[str, str]]]:
    """The series of a server that has seen everything."""
    account = Account()
    metrics = Metrics(account)
    for error in (None, ValueError("x"), Cancelled("left")):
        call = Call({}, program="Rag")
        metrics.run_started(call)
        metrics.run_ended(RunRecord(call, None if error else {}, error, 0.5, 0.1))
    for more in ({"cost": 0.25, "cache": "miss"}, {"cache": "hit"}, {"error": "LMServerError"}):
        account.record(LMRecord(model="openai/x", program="Rag", usage=LMUsage(10, 5, 15, 4, 1, 2), **more))
    metrics.tool_ended("look_up", 0.25, None)
    metrics.watch("limit", Limit(10, queue=5))
    metrics.watch("adaptive", Adaptive())
    metrics.watch("shed", Shed(10))
    metrics.watch("server", lambda: {"active": 1, "max_active": 100, "refused": 0})
    families = text_string_to_metric_families(metrics.render().decode())
    return [(sample.name, dict(sample.labels)) for family in families for sample in family.samples]


SERIES = exported()


def test_the_dashboard_has_its_panels() -> None:
    assert len(QUERIES) > 25
    assert all(selectors(target["expr"]) for _, target in QUERIES)


@pytest.mark.parametrize("target", [target for _, target in QUERIES], ids=[name for name, _ in QUERIES])
def test_a_query_finds_what_is_exported(target: dict[str, Any]) -> None:
    query = target["expr"]
    for selector in selectors(query):
        found = [labels for name, labels in SERIES if selector.fits(name, labels)]
        assert found, f"/metrics has nothing for {selector}"
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
        assert grouped <= found[0].keys(), f"{selector.name} has no label {grouped - found[0].keys()}"
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= grouped, "a legend names a label that the query has summed away"


def test_the_lists_of_names_come_from_labels_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [
        re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert len(asked) == 2
    for match in asked:
        assert match is not None
        metric, label = match.groups()
        assert [labels for name, labels in SERIES if name == metric and label in labels]


def test_every_metric_has_a_place_on_the_dashboard_and_in_the_guide() -> None:
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name, _ in SERIES}
    asked = {re.sub(r"_(bucket|count|sum)$", "", s.name) for _, target in QUERIES for s in selectors(target["expr"])}
    assert families == asked
    guide = GUIDE.read_text()
    assert {family for family in families if f"`{family}`" not in guide} == set()


def test_the_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
