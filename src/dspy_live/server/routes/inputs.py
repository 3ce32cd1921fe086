"""From a request to a Call: the inputs apart from the options that share the body with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError
from dspy_live.core.schema import all_of
from dspy_live.server.routes.messages import history_input
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.http import Request, parse_object


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


MOST_COMPLETIONS = 128
"""As OpenAI has it. Each is paid for, and kept in memory: a million of them, of one request, end a server."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return _whole(value) and value >= 1


def _completions(value: Any) -> bool:
    return _count(value) and value <= MOST_COMPLETIONS


def _stops(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


_Check = tuple[str, Callable[[Any], bool]]
_NUMBER: _Check = ("a number", _number)
_WHOLE: _Check = ("a whole number", _whole)
_COUNT: _Check = ("a whole number of at least 1", _count)

CONFIG_OPTIONS: dict[str, _Check] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "top_k": _WHOLE,
    "min_p": _NUMBER,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "seed": _WHOLE,
    "stop": ("a string or a list of strings", _stops),
    "n": (f"a whole number from 1 to {MOST_COMPLETIONS}", _completions),
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "logit_bias": ("an object", lambda value: isinstance(value, dict)),
    "reasoning_effort": ("a string", lambda value: isinstance(value, str)),
    "rollout_id": ("a string or a number", lambda value: isinstance(value, str) or _number(value)),
    "cache": ("true or false", lambda value: isinstance(value, bool)),
}
"""LM options that a client may set, and what each must be where it is not null. Where the LM is, and with whose key, is
never a client's to say: an ``api_base`` from outside would have the server send its own key there."""


_OPTIONS = frozenset({"stream", "session", "config"})
"""Options that share a body with the inputs, where the program has no input of that name."""


_HEADERS = frozenset({b"x-session", b"x-config", b"traceparent"})
"""Headers that tell of a call; most requests have none of them."""


def make_call(request: Request, program: ServedProgram, body: dict[str, Any], *, stream: bool) -> Call:
    """Return the checked call of a flat JSON body.

    ``stream``, ``config`` and ``session`` in the body are options where the program has no input of that name;
    the ``X-Config`` header (a JSON object) works everywhere. A body's ``"stream": true`` turns
    streaming on. Raises :class:`InputError` that names the field.
    """
    session: Any = ""
    config: Any = {}
    header = trace = ""
    if not _HEADERS.isdisjoint(request.headers):
        session, header = request.header(b"x-session") or "", request.header(b"x-config") or ""
        trace = request.header(b"traceparent") or ""  # the run becomes a part of its client's trace
    if not _OPTIONS.isdisjoint(body):
        options = _OPTIONS.difference(field.name for field in program.schema.inputs)
        if "stream" in body and "stream" in options:
            wanted = body.pop("stream")
            if not isinstance(wanted, bool):
                raise InputError("field 'stream' must be true or false", field="stream", expected="bool")
            stream = stream or wanted
        if "session" in body and "session" in options:
            session = body.pop("session")
        if "config" in body and "config" in options:
            config = body.pop("config")
    if session != "":
        begin_history(program, body)
    if header.strip():  # a proxy or a template may leave it empty
        config = parse_object(header.encode("latin-1"), "the X-Config header")  # bytes as they came, of UTF-8
    call = new_call(program, body, config, request.run_id, request.key, stream=stream, trace=trace)
    return in_session(call, program, session_name(session)) if session != "" else call


def new_call(
    program: ServedProgram, inputs: Any, config: Any, run_id: str, key: str, *, stream: bool, trace: str = ""
) -> Call:
    """Check inputs and config and return the call. Raises :class:`InputError`."""
    if not isinstance(inputs, dict):
        raise InputError("'inputs' must be an object with one key per input field", field="inputs", expected="object")
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise InputError("'config' must be an object of LM options", field="config", expected="object")
    wrong: list[InputError] = []
    if config:
        wrong = [error for name, value in config.items() if (error := _option_error(name, value)) is not None]
    checked, unfit = program.schema.convert(inputs)
    if wrong or unfit:
        raise all_of([*wrong, *unfit])
    return Call(checked, config=config, program=program.name, key=key, stream=stream, trace=trace, id=run_id)


def _option_error(name: str, value: Any) -> InputError | None:
    if name not in CONFIG_OPTIONS:
        return InputError(
            f"'config' can't set {name!r}; it may have {', '.join(sorted(CONFIG_OPTIONS))}",
            field=f"config.{name}",
            expected=sorted(CONFIG_OPTIONS),
        )
    expected, fits = CONFIG_OPTIONS[name]
    if value is None or fits(value):
        return None
    return InputError(f"the option {name!r} must be {expected}", field=f"config.{name}", expected=expected)


LONGEST_SESSION = 200


def begin_history(program: ServedProgram, inputs: dict[str, Any]) -> None:
    """Give a call in a session a history that is empty, where it has none: the session has the rest."""
    if (history := history_input(program.schema)) is not None:
        inputs.setdefault(history, {"messages": []})


def in_session(call: Call, program: ServedProgram, session: str) -> Call:
    """Return the call in a session; raise :class:`InputError` where the program could not be told of it."""
    if history_input(program.schema) is None:
        raise InputError(
            "this program has no input of type dspy.History, so it can't go on with a session", field="session"
        )
    return call.but(session=session)


def session_name(value: Any) -> str:
    """Return the name of a session; raise :class:`InputError` for what is none."""
    of_an_address = isinstance(value, str) and "/" not in value and value not in (".", "..")
    if isinstance(value, str) and of_an_address and 0 < len(value) <= LONGEST_SESSION and value.isprintable():
        return value
    raise InputError(
        f"'session' must be a name of 1 to {LONGEST_SESSION} printable characters without '/'",
        field="session",
        expected="string",
    )
