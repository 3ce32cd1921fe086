"""From a request to a Call: the inputs apart from the options that share the body with them."""

from __future__ import annotations

from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError
from dspy_live.server.http import Request, parse_object
from dspy_live.server.mounted import Mounted

CONFIG_OPTIONS = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "seed", "stop", "n",
        "presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort", "rollout_id", "cache",
    }
)  # fmt: skip
"""LM options that a client may set. Where the LM is, and with whose key, is never a client's to say:
an ``api_base`` from outside would have the server send its own key there."""


def make_call(request: Request, mounted: Mounted, body: dict[str, Any], *, stream: bool) -> Call:
    """Return the checked call of a flat JSON body.

    ``stream`` and ``config`` in the body are options where the program has no input of that name;
    the ``X-Config`` header (a JSON object) works everywhere. A body's ``"stream": true`` turns
    streaming on. Raises :class:`InputError` that names the field.
    """
    names = {field.name for field in mounted.schema.inputs}
    if "stream" in body and "stream" not in names:
        wanted = body.pop("stream")
        if not isinstance(wanted, bool):
            raise InputError("field 'stream' must be true or false", field="stream", expected="bool")
        stream = stream or wanted
    config: Any = {}
    if "config" in body and "config" not in names:
        config = body.pop("config")
    header = request.header(b"x-config")
    if header is not None:
        config = parse_object(header, "the X-Config header")
    call = new_call(mounted, body, config, request.run_id, request.key, stream=stream)
    if (parent := request.header(b"traceparent")) is not None:
        call.attributes["traceparent"] = parent  # the run becomes a part of its client's trace
    return call


def new_call(
    mounted: Mounted,
    inputs: Any,
    config: Any,
    run_id: str,
    key: str,
    *,
    stream: bool,
    restartable: bool = True,
) -> Call:
    """Check inputs and config and return the call. Raises :class:`InputError`."""
    if not isinstance(inputs, dict):
        raise InputError("'inputs' must be an object with one key per input field", field="inputs", expected="object")
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise InputError("'config' must be an object of LM options", field="config", expected="object")
    for name in config:
        if name not in CONFIG_OPTIONS:
            raise InputError(
                f"'config' can't set {name!r}; it may have {', '.join(sorted(CONFIG_OPTIONS))}",
                field=f"config.{name}",
                expected=sorted(CONFIG_OPTIONS),
            )
    attributes: dict[str, Any] = {"key": key, "program": mounted.name}
    if not restartable:
        # Such a door gives out one field, and that only where it can stream.
        field = mounted.schema.last_text_output
        attributes["shown"] = (field,) if mounted.schema.live is None or field in mounted.schema.live else ()
    return Call(
        mounted.schema.check(inputs),
        id=run_id,
        stream=stream,
        restartable=restartable,
        config=config,
        attributes=attributes,
    )
