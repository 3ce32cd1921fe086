"""From the names and JSON of the server's events to the events of the core."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import orjson

from dspy_live.core.events import Custom, Event, Predicted

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind) for kind in get_args(Event)
}


def loads(data: bytes | str) -> Any:
    """Return the value of a JSON text; halves of a character (lone surrogates), which orjson refuses, too.

    Raises ``ValueError``.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def event_of(name: str, data: bytes | str) -> Event:
    """Return the event of that name. One that this version does not know comes as ``Custom``.

    Raises ``ValueError`` for data that does not fit the name.
    """
    decoder = _DECODERS.get(name)
    if decoder is None:
        return Custom(name, loads(data))
    try:
        event: Event = decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # what is wrong may be half a character only
        return event_from(name, loads(data))
    return event


def event_from(name: str, value: Any) -> Event:
    """As :func:`event_of`, of data that has been read already."""
    decoder = _DECODERS.get(name)
    if decoder is None:
        return Custom(name, value)
    event: Event = msgspec.convert(value, decoder.type)
    return event


def prediction_of(data: bytes | str) -> tuple[Predicted, dict[str, Any]]:
    """Return the prediction and what the server says beside it (``duration_ms`` and ``run``)."""
    body = loads(data)
    return Predicted(body.pop("outputs")), body
