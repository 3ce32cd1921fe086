"""Running a program, and the runs that can be read again."""

from __future__ import annotations

from dspy_live.server.openapi.events import EXAMPLE
from dspy_live.server.openapi.examples import inputs_of
from dspy_live.server.openapi.parts import (
    About,
    Describe,
    JSONObject,
    body,
    either,
    event_stream,
    flag,
    in_header,
    in_path,
    in_query,
    list_of,
    number,
    object_of,
    or_null,
    ref,
    reply,
    text,
    whole,
)
from dspy_live.server.routes.inputs import CONFIG_OPTIONS, MOST_COMPLETIONS

EVENTS = event_stream(
    "The run's events; ids are `RUN:SEQ`, and the last data is `[DONE]`. Lines that begin with a colon are heartbeats.",
    ref("Event"),
    EXAMPLE,
)
_RUN_HEADERS = {
    "X-Run-Id": {"description": "The run's id.", "schema": text()},
    "Server-Timing": {"description": "How long the run took, in milliseconds.", "schema": text()},
}
_KINDS = {
    "a number": number(),
    "a whole number": whole(),
    "a whole number of at least 1": whole(minimum=1),
    f"a whole number from 1 to {MOST_COMPLETIONS}": whole(minimum=1, maximum=MOST_COMPLETIONS),
    "a string": text(),
    "a string or a list of strings": {"anyOf": [text(), list_of(text())]},
    "an object": {"type": "object"},
    "a string or a number": {"type": ["string", "number"]},
    "true or false": flag(),
}


def components() -> JSONObject:
    """Return the schemas of runs, their usage and their options."""
    options = {name: or_null_of(_KINDS[expected]) for name, (expected, _) in CONFIG_OPTIONS.items()}
    counts = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    return {
        "Options": object_of("LM options for one call.", options, required=[]) | {"additionalProperties": False},
        "Usage": object_of(
            "",
            {name: whole() for name in (*counts, "lm_calls", "cached_calls")},
            cost=or_null(number("US dollars; null when a price is not known.")),
            estimated=flag("The LM did not report its tokens."),
        ),
        "Run": object_of(
            id=text(),
            usage=ref("Usage"),
            cached=flag("Every LM reply came from the cache."),
            truncated=flag("A reply of the LM was cut at its limit of tokens."),
        ),
        "RunStatus": object_of(
            "How a run stands.",
            required=["run", "status"],
            run=ref("Run"),
            status=text(),
            outputs={"type": "object"},
            error={"type": "object"},
        ),
    }


def or_null_of(schema: JSONObject) -> JSONObject:
    """Return the schema of an option, which null turns off."""
    if isinstance(schema.get("type"), list):
        return schema | {"type": [*schema["type"], "null"]}
    return or_null(schema)


HEADERS = [
    in_header("X-Config", "`Options` as a JSON object, in place of `config` in the body. Empty counts as absent."),
    in_header("X-Session", "The conversation that the run goes on with, in place of `session` in the body."),
    in_header("X-Client-Run-Id", "A name of your own for the run, to stop it by."),
    in_header("traceparent", "The W3C trace that the run becomes a part of."),
]


def _run(about: About, summary: str, replies: JSONObject) -> JSONObject:
    name = about.program.name
    return {
        "summary": summary,
        "description": about.program.schema.description,
        "tags": [name],
        "parameters": HEADERS,
        "requestBody": body(ref(f"{name}.Inputs"), inputs_of(about.program.schema)),
        "responses": replies,
    }


def _predict(about: About) -> JSONObject:
    outputs = reply("The outputs.", ref(f"{about.program.name}.Outputs"), headers=_RUN_HEADERS)
    return _run(about, "Run the program", {"200": either(outputs, EVENTS)})


def _stream(about: About) -> JSONObject:
    return _run(about, "Run the program and stream its events", {"200": EVENTS | {"headers": _RUN_HEADERS}})


def _create(about: About) -> JSONObject:
    schema = object_of(run=object_of(id=text()), events=text("Where the run's events are."))
    where = {"Location": {"description": "Where the run's events are.", "schema": text()}}
    created = reply("The run has begun.", schema, headers=where | _RUN_HEADERS)
    return _run(about, "Start a run whose events can be read, and read again after a disconnect", {"201": created})


_ID = in_path("id", "The run's id.")
_OVER: JSONObject = {"description": "The run is over."}


def _events(about: About) -> JSONObject:
    after = "Read on after this event: `RUN:SEQ`, or `SEQ` alone. Anything else is an error 400."
    place = text(pattern="^([0-9a-f]+:)?[0-9]{1,15}$")
    return {
        "summary": "Stream a run's events, from the beginning or after Last-Event-ID",
        "tags": ["runs"],
        "parameters": [
            _ID,
            in_header("Last-Event-ID", after) | {"schema": place},
            in_query(
                "last_event_id", text(pattern="^([0-9a-f]+:)?[0-9]{1,15}$"), "The same, for who can't set a header."
            ),
        ],
        "responses": {"200": EVENTS, "204": {"description": "The run is over, and there is nothing more."}},
    }


def _show(about: About) -> JSONObject:
    shown = reply("How the run stands, and when it is over what came of it.", ref("RunStatus"))
    return {"summary": "See how a run stands", "tags": ["runs"], "parameters": [_ID], "responses": {"200": shown}}


def _stop(about: About) -> JSONObject:
    stopping = object_of(run=object_of(id=text()), status=text(const="cancelling"))
    named = in_path("id", "The run's id, or the name that its request had as X-Client-Run-Id.")
    replies = {"202": reply("The run is being stopped.", stopping), "204": _OVER}
    return {"summary": "Stop a run", "tags": ["runs"], "parameters": [named], "responses": replies}


PER_PROGRAM: dict[tuple[str, str], Describe] = {
    ("POST", "/predict"): _predict,
    ("POST", "/predict/stream"): _stream,
    ("POST", "/runs"): _create,
}
OPERATIONS: dict[tuple[str, str], Describe] = {
    ("GET", "/runs/{id}/events"): _events,
    ("GET", "/runs/{id}"): _show,
    ("DELETE", "/runs/{id}"): _stop,
    ("POST", "/runs/{id}/stop"): _stop,
}
MORE_ERRORS = {
    ("GET", "/runs/{id}/events"): ("400", "404", "410"),
    ("GET", "/runs/{id}"): ("404", "410"),
    ("DELETE", "/runs/{id}"): ("404",),
    ("POST", "/runs/{id}/stop"): ("404",),
}
