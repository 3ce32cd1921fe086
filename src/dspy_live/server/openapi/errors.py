"""Errors: a schema for each status, with the types that it may have."""

from __future__ import annotations

from collections.abc import Iterator

from dspy_live.core.errors import ConfigurationError, LiveError
from dspy_live.server.errors import ClientGone, MethodNotAllowed
from dspy_live.server.openapi.parts import JSONObject, list_of, number, object_of, or_null, ref, text
from dspy_live.server.transport.routing import Route

WORDS = {
    "400": "The request can't be read.",
    "401": "No API key, or one that is not known.",
    "402": "A budget is spent.",
    "403": "A page of another origin, or a key without this scope.",
    "404": "No such thing.",
    "408": "The body did not arrive in time.",
    "410": "It is no longer kept.",
    "413": "The body is over the size limit.",
    "422": "An input is unknown, missing or of the wrong type; `field` names the first, `errors` all.",
    "429": "Over a rate limit; try again after `Retry-After` seconds.",
    "499": "The run was cancelled.",
    "500": "The program failed.",
    "502": "The LM failed.",
    "503": "No room, or shutting down; try again after `Retry-After` seconds.",
    "504": "The deadline passed.",
}
_OF_RUNS = ("402", "404", "429", "499", "500", "502", "503", "504")
_OF_BODIES = ("400", "408", "413", "422")
_NO_REPLIES = (ClientGone, ConfigurationError, MethodNotAllowed)
"""Errors that no documented request is answered with."""


def components() -> JSONObject:
    """Return the schemas of errors: ``Error``, and ``Error422`` and so on with the types of that status."""
    wrong = object_of(required=["message"], field=text(), message=text(), expected={})
    error = object_of(
        required=["type", "message", "run_id"],
        type=text("For programs; it stays as it is."),
        message=text("For people."),
        run_id=or_null(text("The run's id, where the request had become a run.")),
        field=text("The first input or option that does not fit."),
        expected={"description": "What was expected of it."},
        errors=list_of(wrong),
        retry_after=number("Seconds to wait."),
    )
    chat = object_of(
        required=["type", "message", "code"],
        type=text("One of OpenAI's kinds."),
        message=text("For people."),
        code=text("The type of the error on the other routes."),
        param=or_null(text("The parameter that does not fit.")),
        run_id=or_null(text()),
    )
    rpc = object_of(required=["code", "message"], code={"type": "integer"}, message=text(), data={})
    made: JSONObject = {
        "Error": object_of("Every failure.", error=error),
        "ChatError": object_of("A failure as OpenAI's clients read it.", error=chat),
        "RpcError": object_of(
            "A failure of JSON-RPC.",
            required=["jsonrpc", "error"],
            jsonrpc=text(const="2.0"),
            id={"type": ["string", "integer", "null"]},
            error=rpc,
        ),
    }
    for status, types in sorted(types_by_status().items()):
        typed = object_of(error=object_of(type=text(enum=types)))
        made[f"Error{status}"] = {"allOf": [ref("Error"), typed], "description": WORDS[status]}
    return made


def types_by_status() -> dict[str, list[str]]:
    """Return the types of error that a reply may have, by its status."""
    found: dict[str, set[str]] = {}
    for kind in _kinds(LiveError):
        if str(kind.status) in WORDS and not issubclass(kind, _NO_REPLIES) and kind.__module__ in _MODULES:
            # What is not public is told as a failure of the program.
            found.setdefault(str(kind.status), set()).add(kind.code)
    return {status: sorted(types) for status, types in found.items()}


_MODULES = ("dspy_live.core.errors", "dspy_live.server.errors")


def _kinds(kind: type[LiveError]) -> Iterator[type[LiveError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _kinds(one)


def replies(route: Route, *, runs: bool, more: tuple[str, ...] = ()) -> JSONObject:
    """Return the error replies of a route: those of keys, of bodies, of runs where it starts one, and ``more``."""
    codes: set[str] = set(more)
    if not route.open:
        codes |= {"401", "403"}
    if route.method == "POST" and not route.path.endswith("/stop"):
        codes |= set(_OF_BODIES)
    if runs:
        codes |= set(_OF_RUNS)
    schema = _SCHEMAS.get(route.error_object.__name__)
    return {code: _reply(code, ref(schema or f"Error{code}")) for code in sorted(codes)}


_SCHEMAS = {"chat_error_object": "ChatError", "rpc_error_object": "RpcError"}


def _reply(code: str, schema: JSONObject) -> JSONObject:
    made: JSONObject = {"description": WORDS[code], "content": {"application/json": {"schema": schema}}}
    if code in ("429", "503"):
        made["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return made
