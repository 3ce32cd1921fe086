"""What the server says of itself: OpenAPI, programs, statistics, and itself under another application."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from tests.server.support import Live, Scripted, answer, http, qa, serving, sse

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.schema import Field, Schema
from dspy_live.server import ServedProgram, create_app

CITY = {
    "$defs": {"City": {"type": "object", "properties": {"name": {"type": "string"}}}},
    "type": "array",
    "items": {"$ref": "#/$defs/City"},
}
RICH = Schema(
    "Rich",
    (
        Field("question", description="What to ask"),
        Field("k", type="int", json_schema={"type": "integer"}, required=False, default=3),
    ),
    (Field("cities", type="list[City]", json_schema=CITY), Field("answer")),
    "Finds cities.",
)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    programs = {"qa": qa(), "rich.v2": ServedProgram("rich.v2", Scripted(answer), RICH)}
    with serving(create_app(programs, title="Two programs", simulated=True)) as server:
        yield server


def references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_openapi_describes_every_program(live: Live) -> None:
    doc = http.get(live.url + "/openapi.json").json()
    assert doc["openapi"] == "3.1.0"
    assert doc["info"]["title"] == "Two programs"
    inputs = doc["components"]["schemas"]["qa.Inputs"]
    assert inputs["required"] == ["question"]
    assert inputs["properties"]["question"] == {"type": "string", "description": "What to ask"}
    rich = doc["components"]["schemas"]["rich.v2.Inputs"]
    assert rich["properties"]["k"] == {"type": "integer", "default": 3}
    assert rich["required"] == ["question"]
    assert "cities" in doc["components"]["schemas"]["rich.v2.Outputs"]["properties"]
    assert {"/predict", "/predict/stream", "/programs/rich.v2/predict", "/runs/{id}/events"} <= set(doc["paths"])
    media = doc["paths"]["/programs/rich.v2/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert media["examples"] == {"example": {"value": {"question": "text", "k": 3}}}
    names = doc["components"]["schemas"]
    for reference in references(doc):
        assert reference.removeprefix("#/components/schemas/") in names


def test_every_documented_path_is_there(live: Live) -> None:
    doc = http.get(live.url + "/openapi.json").json()
    for path, methods in doc["paths"].items():
        for method in methods:
            reply = http.request(method.upper(), live.url + path.replace("{id}", "abc"))
            assert reply.status_code != 405, (method, path)
            if reply.status_code == 404:
                assert "nothing is at" not in reply.text, (method, path)


def test_keys_are_documented_where_they_are_needed() -> None:
    with serving(qa(), api_keys=["k"]) as live:
        doc = http.get(live.url + "/openapi.json", headers={"X-API-Key": "k"}).json()
    assert doc["security"] == [{"key": []}, {"header": []}]


def test_programs(live: Live) -> None:
    listed = http.get(live.url + "/programs").json()
    assert listed["title"] == "Two programs"
    assert [p["name"] for p in listed["programs"]] == ["qa", "rich.v2"]
    rich = http.get(live.url + "/programs/rich.v2").json()
    assert rich == listed["programs"][1]
    assert rich["inputs"][1] == {
        "name": "k", "type": "int", "description": "", "required": False, "schema": {"type": "integer"}, "default": 3,
    }  # fmt: skip


def test_a_program_is_run_under_its_name(live: Live) -> None:
    reply = http.post(live.url + "/programs/rich.v2/predict", json={"question": "x"})
    assert reply.json()["answer"] == "You asked: x"
    streamed = http.post(live.url + "/programs/rich.v2/predict/stream", json={"question": "x"})
    assert sse(streamed.text)[-1][0] == "done"
    run = http.post(live.url + "/programs/rich.v2/runs", json={"question": "x"}).json()
    assert sse(http.get(live.url + run["events"]).text)[-1][0] == "done"


def test_stats_and_metrics_count_runs(live: Live) -> None:
    before = http.get(live.url + "/stats").json()
    http.post(live.url + "/predict/stream", json={"question": "x"})
    after = http.get(live.url + "/stats").json()
    assert after["succeeded"] == before["succeeded"] + 1
    assert after["tokens"] == before["tokens"] + 5
    assert after["cost"] > before["cost"]
    assert after["duration_ms"]["p50"] > 0
    assert after["first_token_ms"]["p50"] > 0
    text = http.get(live.url + "/metrics").text
    assert f"\ndspy_live_server_runs_succeeded_total {after['succeeded']}\n" in text


def test_metrics_and_usage_come_from_their_hooks() -> None:
    asked: list[Mapping[str, str]] = []

    async def usage(query: Mapping[str, str]) -> object:
        asked.append(query)
        return {"rows": [1]}

    with serving(qa(), metrics=lambda: b"mine 1\n", usage=usage) as live:
        metrics = http.get(live.url + "/metrics")
        assert metrics.text == "mine 1\n"
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert http.get(live.url + "/usage?by=model&day=1").json() == {"rows": [1]}
    assert asked == [{"by": "model", "day": "1"}]


def test_a_key_sees_its_own_usage_only() -> None:
    asked: list[Mapping[str, str]] = []

    def usage(query: Mapping[str, str]) -> object:
        asked.append(query)
        return {}

    with serving(qa(), api_keys={"ann": "secret-of-ann", "bob": "secret-of-bob"}, usage=usage) as live:
        for wanted in ("", "?key=bob", "?by=key"):
            http.get(live.url + f"/usage{wanted}", headers={"Authorization": "Bearer secret-of-ann"})
    assert [query["key"] for query in asked] == ["ann"] * 3


def test_usage_without_a_ledger_is_not_found(live: Live) -> None:
    assert http.get(live.url + "/usage").status_code == 404


def test_health(live: Live) -> None:
    assert http.get(live.url + "/health/live").json() == {"status": "alive"}
    ready = http.get(live.url + "/health/ready")
    assert ready.json()["status"] == "ready"
    assert ready.json()["simulated"] is True
    assert ready.headers["x-simulated"] == "1"
    assert http.head(live.url + "/health/live").status_code == 200


@pytest.mark.parametrize("host", [FastAPI, Starlette])
def test_it_can_be_mounted_in_another_application(host: Any) -> None:
    outer = host()
    outer.mount("/llm", create_app(qa()))
    with serving(create_app(qa()), wrap=outer) as live:
        assert http.post(live.url + "/llm/predict", json={"question": "x"}).json()["answer"] == "You asked: x"
        run = http.post(live.url + "/llm/runs", json={"question": "x"}).json()
        assert run["events"].startswith("/llm/runs/")
        assert sse(http.get(live.url + run["events"]).text)[-1][0] == "done"
        assert http.get(live.url + "/llm/openapi.json").json()["servers"] == [{"url": "/llm"}]
        page = http.get(live.url + "/llm", follow_redirects=True)
        assert page.status_code == 200
        assert str(page.url).endswith("/llm/")


def test_it_works_under_a_middleware_that_wraps_receive() -> None:
    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = create_app(qa())
    with serving(app, wrap=BaseHTTPMiddleware(app, pass_on)) as live:
        reply = http.post(live.url + "/predict/stream", json={"question": "x"})
        assert sse(reply.text)[-1][0] == "done"


@pytest.mark.parametrize("name", ["", "a/b", "-x", "a b", "ä"])
def test_names_that_can_not_be_in_a_path(name: str) -> None:
    with pytest.raises(ConfigurationError):
        ServedProgram(name, Scripted(answer), RICH)


def test_a_server_without_programs_or_with_a_wrong_name() -> None:
    with pytest.raises(ConfigurationError):
        create_app({})
    with pytest.raises(ConfigurationError):
        create_app({"other": qa()})


def test_the_schema_can_be_sent_as_json(live: Live) -> None:
    json.dumps(http.get(live.url + "/openapi.json").json())


def test_classes_of_a_users_fields_keep_their_places_in_the_document() -> None:
    definitions = {
        "Cat": {"type": "object", "properties": {"kind": {"const": "cat"}}},
        "Inputs": {"type": "object", "properties": {"x": {"type": "integer"}}},
    }
    pet = {
        "$defs": definitions,
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Inputs"}],
        "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "x": "#/$defs/Inputs"}},
    }
    schema = Schema("Pets", (Field("pet", type="Cat | Inputs", json_schema=pet),), (Field("answer"),))
    with serving(ServedProgram("pets", Scripted(answer), schema)) as live:
        doc = http.get(live.url + "/openapi.json").json()
    schemas = doc["components"]["schemas"]
    assert schemas["pets.Inputs"]["required"] == ["pet"]
    shown = schemas["pets.Inputs"]["properties"]["pet"]
    places = [*references(shown), *shown["discriminator"]["mapping"].values()]
    found = [schemas[place.removeprefix("#/components/schemas/")] for place in places]
    assert found == [definitions["Cat"], definitions["Inputs"]] * 2
