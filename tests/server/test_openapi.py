"""The OpenAPI document says what is served: nothing less, nothing else, and so that its examples can be sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.server.support import Live, http, qa, serving, sse

from dspy_live.core import events
from dspy_live.server.openapi import PAGES, document
from dspy_live.server.openapi.events import names

JSONObject = dict[str, Any]


@pytest.fixture
def doc(guide: Live) -> JSONObject:
    found: JSONObject = http.get(guide.url + "/openapi.json").json()
    return found


def schema(doc: JSONObject, part: Mapping[str, Any]) -> Draft202012Validator:
    """A validator of one schema of the document, whose references lead into the document."""
    return Draft202012Validator({**part, "components": doc["components"]})


def operations(doc: JSONObject) -> Iterator[tuple[str, str, JSONObject]]:
    for path, methods in doc["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_the_document_is_valid(doc: JSONObject, guide: Live) -> None:
    programs = {name: guide.app.programs[name] for name in ("survey", "talk")}  # the validator takes its time
    secured = document.build(programs, "guide", guide.app.router.routes, secured=True)
    OpenAPIV31SpecValidator(json.loads(json.dumps(secured))).validate()
    for each in doc["components"]["schemas"].values():
        Draft202012Validator.check_schema(each)
    ids = [operation["operationId"] for _, _, operation in operations(doc)]
    assert len(set(ids)) == len(ids)


def test_a_server_with_keys_names_them_and_open_routes_need_none() -> None:
    with serving(qa(), api_keys=["k"]) as live:
        doc = http.get(live.url + "/openapi.json", headers={"X-API-Key": "k"}).json()
    assert set(doc["components"]["securitySchemes"]) == {"key", "header", "query"}
    assert doc["paths"]["/health/live"]["get"]["security"] == []
    assert {"query": []} in doc["paths"]["/runs/{id}/events"]["get"]["security"]


def test_every_route_that_is_served_is_documented_and_the_other_way_round(doc: JSONObject, guide: Live) -> None:
    served = set()
    for route in guide.app.router.routes:
        if route.path in PAGES:
            continue
        several = route.path.startswith("/programs/{program}/")
        for name in guide.app.programs if several else ("",):
            served.add((route.method, route.path.replace("{program}", name) if several else route.path))
    assert {(method, path) for method, path, _ in operations(doc)} == served


def test_no_operation_is_told_by_its_docstring_alone(guide: Live) -> None:
    known = {*document._PER_PROGRAM, *document._COMMON}
    routes = {(r.method, r.path) for r in guide.app.router.routes if r.path not in PAGES}
    untold = {r for r in routes if r not in known and (r[0], r[1].removeprefix("/programs/{program}")) not in known}
    assert untold == set(), "describe these in dspy_live/server/openapi"


def test_every_event_is_documented() -> None:
    kinds = {kind.__struct_config__.tag for kind in events.Event.__args__}  # type: ignore[attr-defined]
    assert kinds | {"prediction", "error", "done"} == set(names())


def test_the_events_of_a_stream_are_as_documented(doc: JSONObject, guide: Live) -> None:
    check = schema(doc, {"$ref": "#/components/schemas/Event"})
    seen = set()
    bodies: list[tuple[str, JSONObject]] = [
        ("rivers", {"question": "Which?", "style": "short"}),
        ("rivers", {"question": "late", "style": "short"}),
        ("survey", {"place": {"name": "deep"}}),
    ]
    for program, body in bodies:
        reply = http.post(f"{guide.url}/programs/{program}/predict/stream", json=body)
        for event, place, data in sse(reply.text):
            check.validate({"event": event, "id": place, "data": data})
            seen.add(event)
    assert seen == set(names()) - {"text"}, "an LM's raw text is no program's"


def runnable(doc: JSONObject) -> list[tuple[str, str, Any]]:
    found = []
    for method, path, operation in operations(doc):
        for media in operation.get("requestBody", {}).get("content", {}).values():
            found += [(method, path, each["value"]) for each in media["examples"].values()]
    return found


def test_every_example_fits_its_schema_and_can_be_sent(doc: JSONObject, guide: Live) -> None:
    sent = runnable(doc)
    assert len(sent) > 20
    for method, path, body in sent:
        operation = doc["paths"][path][method.lower()]
        asked = operation["requestBody"]["content"]["application/json"]["schema"]
        schema(doc, asked).validate(body)
        reply = http.request(method, guide.url + path, json=body)
        if "/v1/" in path or "/ui/chat" in path or "/agui" in path:
            # A program with inputs of its own refuses a chat's text, and says which inputs it takes.
            assert reply.status_code in (200, 422), (path, reply.text)
        else:
            assert reply.status_code in (200, 201), (path, reply.text)
        check_reply(doc, operation, reply, path)


def check_reply(doc: JSONObject, operation: JSONObject, reply: Any, path: str) -> None:
    """A reply's status, media type and body are among those that are documented."""
    assert str(reply.status_code) in operation["responses"], (path, reply.status_code, reply.text)
    told = operation["responses"][str(reply.status_code)]
    if not reply.content:
        return
    kind = reply.headers["content-type"].partition(";")[0]
    assert kind in told["content"], (path, kind)
    if kind == "application/json":
        schema(doc, told["content"][kind]["schema"]).validate(reply.json())


READS = [
    "/programs", "/programs/rivers", "/programs/no", "/v1/models", "/v1/models/talk", "/v1/models/no", "/stats",
    "/metrics", "/usage", "/health/live", "/health/ready", "/sessions", "/sessions/no", "/sessions?limit=x", "/runs/no",
    "/runs/no/events", "/openapi.json",
]  # fmt: skip


@pytest.mark.parametrize("path", READS)
def test_what_is_read_is_as_documented(doc: JSONObject, guide: Live, path: str) -> None:
    template = path.partition("?")[0]
    if template not in doc["paths"]:
        head, _, _ = template.replace("/events", "").rpartition("/")
        ends = "/events" if path.endswith("/events") else ""
        template = next(each for each in doc["paths"] if each.startswith(head + "/{") and each.endswith("}" + ends))
    check_reply(doc, doc["paths"][template]["get"], http.get(guide.url + path), path)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/predict", "{", {}, 400),
        ("/predict", '{"question": "x"}', {"X-Config": "{"}, 400),
        ("/predict", '{"question": "Which?", "style": "short"}', {"X-Config": ""}, 200),
        ("/predict", '{"question": 1, "nothing": 2}', {}, 422),
        ("/predict", '{"question": "nothing", "style": "short"}', {}, 502),
        ("/predict", '{"question": "x", "style": "short", "config": {"speed": 1}}', {}, 422),
        ("/v1/chat/completions", "{}", {}, 404),
        ("/mcp", "{", {}, 400),
    ],
)
def test_mistakes_are_answered_as_documented(
    doc: JSONObject, guide: Live, path: str, body: str, headers: dict[str, str], status: int
) -> None:
    reply = http.post(guide.url + path, content=body, headers=headers)
    if path != "/mcp":
        assert reply.status_code == status, reply.text
    check_reply(doc, doc["paths"][path]["post"], reply, path)


def test_a_wrong_last_event_id_is_answered_as_documented(doc: JSONObject, guide: Live) -> None:
    run = http.post(guide.url + "/runs", json={"question": "Which?", "style": "short"}).json()
    reply = http.get(guide.url + run["events"], headers={"Last-Event-ID": "abc"})
    assert reply.status_code == 400
    check_reply(doc, doc["paths"]["/runs/{id}/events"]["get"], reply, "events")
    shown = http.get(f"{guide.url}/runs/{run['run']['id']}")
    check_reply(doc, doc["paths"]["/runs/{id}"]["get"], shown, "run")
    stopped = http.post(f"{guide.url}/runs/{run['run']['id']}/stop")
    check_reply(doc, doc["paths"]["/runs/{id}/stop"]["post"], stopped, "stop")


def test_the_types_of_errors_are_named_for_each_status(doc: JSONObject) -> None:
    schemas = doc["components"]["schemas"]
    types = {status: schemas[f"Error{status}"]["allOf"][1]["properties"]["error"]["properties"]["type"]["enum"]
             for status in ("422", "502", "503")}  # fmt: skip
    assert types["422"] == ["invalid_input"]
    assert {"lm_failed", "lm_truncated", "stream_broken"} <= set(types["502"])
    assert {"draining", "overloaded", "circuit_open"} <= set(types["503"])


def test_the_websocket_is_described(doc: JSONObject) -> None:
    assert set(doc["x-websockets"]) == {
        "/ws",
        *(f"/programs/{name}/ws" for name in ("rivers", "survey", "talk", "anything")),
    }
    for each in doc["x-websockets"].values():
        Draft202012Validator.check_schema(each["receives"])
        Draft202012Validator.check_schema(each["sends"])
        frames = Draft202012Validator({**each["receives"], "components": doc["components"]})
        for example in each["examples"].values():
            frames.validate(example["value"])
    talk = doc["x-websockets"]["/programs/talk/ws"]["examples"]["start"]["value"]["inputs"]
    assert set(talk) == {"history", "question"}
