"""What the server says of itself, and the conversations that it keeps."""

from __future__ import annotations

from dspy_live.server.openapi.parts import (
    About,
    Describe,
    JSONObject,
    flag,
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

_ANY: JSONObject = {"type": "object"}


def components() -> JSONObject:
    """Return the schemas of programs, statistics and sessions."""
    field = object_of(
        required=["name", "type", "description", "required", "schema"],
        name=text(),
        type=text("As a person would write it."),
        description=text(),
        required_=flag(),
        schema=_ANY,
        default={},
    )
    field["properties"]["required"] = field["properties"].pop("required_")
    times = or_null(object_of(p50=number(), p95=number(), p99=number()))
    counts = ("active", "started", "succeeded", "failed", "cancelled", "refused", "tokens")
    session = {"id": text(), "program": text(), "created": number("Unix seconds."), "updated": number("Unix seconds.")}
    turn = object_of(id=text(), created=number("Unix seconds."), messages=list_of(_ANY))
    return {
        "Program": object_of(
            name=text(),
            signature=text(),
            description=text(),
            simulated=flag("Its LM is the simulated one."),
            open=flag("Its inputs could not be found out: it takes any."),
            inputs=list_of(field),
            outputs=list_of(field),
            examples=list_of(object_of(inputs=_ANY, outputs=_ANY)),
        ),
        "Statistics": object_of(
            "",
            {name: whole() for name in counts},
            max_active=or_null(whole()),
            draining=flag(),
            uptime_s=number(),
            cost=number("US dollars."),
            duration_ms=times,
            first_token_ms=times,
        ),
        "Ready": object_of(
            required=["status", "programs", "active", "max_active", "simulated"],
            status=text(),
            programs=list_of(text()),
            active=whole(),
            max_active=or_null(whole()),
            simulated=flag(),
            lm={"description": "What is known of the LM."},
        ),
        "Session": object_of("", session, turns=whole()),
        "SessionWithTurns": object_of("", session, turns=list_of(turn)),
    }


def _get(summary: str, tag: str, shown: JSONObject, *parameters: JSONObject) -> Describe:
    def describe(about: About) -> JSONObject:
        made: JSONObject = {"summary": summary, "tags": [tag], "responses": {"200": shown}}
        return made | ({"parameters": list(parameters)} if parameters else {})

    return describe


_LISTED = object_of(title=text(), simulated=flag(), programs=list_of(ref("Program")))
_NAME = in_path("program", "The program's name.")
_SESSION = in_path("id", "The session's name.")
_TEXT: JSONObject = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": text()}}}
_LIMIT = in_query("limit", whole(minimum=1, maximum=100), "How many.")
_BEFORE = in_query("before", number(), "Only those last used before this time, in Unix seconds.")


def _ready(about: About) -> JSONObject:
    replies = {"200": reply("It takes runs.", ref("Ready")), "503": reply("It takes none now.", ref("Ready"))}
    return {"summary": "New runs are taken", "tags": ["server"], "responses": replies}


def _delete_session(about: About) -> JSONObject:
    replies = {"204": {"description": "It is deleted."}}
    return {"summary": "Delete a conversation", "tags": ["sessions"], "parameters": [_SESSION], "responses": replies}


_SESSIONS = object_of(sessions=list_of(ref("Session")), more=flag("There may be more."))
OPERATIONS: dict[tuple[str, str], Describe] = {
    ("GET", "/programs"): _get("The programs and their fields", "server", reply("The programs.", _LISTED)),
    ("GET", "/programs/{program}"): _get("One program", "server", reply("The program.", ref("Program")), _NAME),
    ("GET", "/sessions"): _get(
        "The key's conversations", "sessions", reply("The last used first.", _SESSIONS), _LIMIT, _BEFORE
    ),
    ("GET", "/sessions/{id}"): _get(
        "One conversation", "sessions", reply("Its turns, the oldest first.", ref("SessionWithTurns")), _SESSION
    ),
    ("DELETE", "/sessions/{id}"): _delete_session,
    ("GET", "/metrics"): _get("Statistics for Prometheus", "server", _TEXT),
    ("GET", "/stats"): _get("Statistics of this process", "server", reply("The counts.", ref("Statistics"))),
    ("GET", "/usage"): _get("What was used and spent", "server", reply("What the ledger has.", {})),
    ("GET", "/health/live"): _get(
        "The process runs", "server", reply("It runs.", object_of(status=text(const="alive")))
    ),
    ("GET", "/health/ready"): _ready,
    ("GET", "/openapi.json"): _get("This document", "server", reply("The document.", _ANY)),
}
MORE_ERRORS = {
    ("GET", "/programs/{program}"): ("404",),
    ("GET", "/sessions"): ("422", "503"),
    ("GET", "/sessions/{id}"): ("404", "503"),
    ("DELETE", "/sessions/{id}"): ("404", "503"),
    ("GET", "/usage"): ("404",),
}
