"""``streaming_response``: a program's stream as server-sent events, in place of DSPy's; every item type has a form."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import dspy
import msgspec
import orjson
from dspy.streaming import StatusMessage, StreamResponse
from pydantic_core import to_jsonable_python

from dspy_live.programs.api.items import PartialValue, StreamToken
from dspy_live.programs.run.schema import outputs_of


async def streaming_response(streamer: AsyncIterable[Any]) -> AsyncIterator[str]:
    """Yield each item of ``streamer`` as one ``data:`` event, and ``data: [DONE]`` at the end.

    ``{"prediction": {…}}``, ``{"chunk": …}`` for tokens and provider chunks, ``{"partial": …}``, ``{"status": …}``,
    ``{"restart": …}`` and the other events by their type, ``{"output": …}`` for anything else that a
    program returns. Text that begins with ``data:`` goes out as it is. Closing it closes the stream.
    """
    try:
        async for item in streamer:
            if isinstance(item, str) and not isinstance(item, StreamToken) and item.startswith("data:"):
                yield item
            else:
                yield f"data: {orjson.dumps(_form(item)).decode()}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        close = getattr(streamer, "aclose", None)
        if close is not None:
            await close()


def _form(item: Any) -> dict[str, Any]:
    if isinstance(item, dspy.Prediction):
        return {"prediction": outputs_of(item)}
    if isinstance(item, StreamToken):
        return {"chunk": item.json()}
    if isinstance(item, PartialValue):
        return {"partial": {"field": item.signature_field_name, "value": item.value, "final": item.is_last_chunk}}
    if isinstance(item, StreamResponse):
        return {"chunk": orjson.dumps(item).decode()}
    if isinstance(item, StatusMessage):
        return {"status": item.message}
    if isinstance(item, msgspec.Struct):
        fields = msgspec.to_builtins(item, enc_hook=str)
        kind = fields.pop("type", type(item).__name__)
        return {kind: fields}
    if hasattr(item, "json") and hasattr(item, "choices"):
        return {"chunk": item.json()}
    return {"output": to_jsonable_python(item, fallback=str, serialize_unknown=True)}
