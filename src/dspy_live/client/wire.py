"""The server's events, from the names and JSON of its wire to the events of the core."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import orjson

from dspy_live.core.events import Custom, Event, Predicted

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind) for kind in get_args(Event)
}


def event_of(name: str, data: bytes | str) -> Event:
    """Return the event of that name. One that this version does not know comes as ``Custom``.

    Raises ``ValueError`` for data that does not fit the name.
    """
    decoder = _DECODERS.get(name)
    if decoder is None:
        return Custom(name, orjson.loads(data))
    event: Event = decoder.decode(data)
    return event


def prediction_of(data: bytes | str) -> tuple[Predicted, dict[str, Any]]:
    """Return the prediction and what the server says beside it (``duration_ms`` and ``run``)."""
    body = orjson.loads(data)
    return Predicted(body.pop("outputs")), body
