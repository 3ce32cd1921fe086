"""A run as JSON, for those that get its answer later or elsewhere, and its playback."""

from __future__ import annotations

from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Partial, Predicted, Restart, Result, Started, TextDelta, Token
from dspy_live.core.sink import Sink

_FORMAT = "dspy-live-run-v2"


class Recorder:
    """A sink that hands all on and remembers for the playback the text or value of each LM call's fields."""

    __slots__ = ("_said", "_sink", "room")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._said: dict[tuple[int, str], dict[str, Any]] = {}
        self.room = sink.room

    def push(self, event: Event) -> bool:
        if isinstance(event, Token):
            self._place(event, event.field).setdefault("text", []).append(event.text)
        elif isinstance(event, TextDelta):
            self._place(event, "").setdefault("delta", []).append(event.text)
        elif isinstance(event, Partial):
            self._place(event, event.field)["value"] = event.value
        elif isinstance(event, Restart):
            lm_call, fields = event.lm_call, event.fields
            void = [at for at in self._said if at[0] == lm_call and (not fields or at[1] in fields)]
            for at in void:
                del self._said[at]
        return self._sink.push(event)

    def record(self, result: Result, streamed: bool) -> dict[str, Any]:
        """Return the entry for the store, as JSON-like values."""
        said = [{k: "".join(v) if k in ("text", "delta") else v for k, v in p.items()} for p in self._said.values()]
        kept = {"format": _FORMAT, "streamed": streamed, "said": said}
        if isinstance(result, Completion):
            return {**kept, "response": result.response}
        return {**kept, "outputs": result.outputs, "bare": result.bare}

    def _place(self, event: Token | Partial | TextDelta, field: str) -> dict[str, Any]:
        place = {"lm_call": event.lm_call, "predictor": event.predictor, "field": field}
        return self._said.setdefault((event.lm_call, field), place)


def read(record: Any, stream: bool) -> tuple[list[Event], Result] | None:
    """Return the events and the result; ``None`` for an entry of another version, or of a stranger.

    A run that nobody streamed has said nothing: it answers calls that don't stream either.
    """
    if not isinstance(record, dict) or record.get("format") != _FORMAT or (stream and not record.get("streamed")):
        return None
    try:
        said = [_event(place) for place in record["said"]]
        if "response" in record:
            return said, Completion(record["response"])
        return said, Predicted(dict(record["outputs"]), bare=bool(record["bare"]))
    except (KeyError, TypeError, ValueError):
        return None


def _event(place: dict[str, Any]) -> Event:
    if "delta" in place:
        return TextDelta(place["delta"], place["lm_call"], place["predictor"])
    if "text" in place:
        return Token(place["text"], place["field"], place["predictor"], place["lm_call"], last=True)
    return Partial(place["value"], place["field"], place["predictor"], place["lm_call"], final=True)


async def play(call: Call, sink: Sink, said: list[Event], result: Result) -> None:
    """Push what a kept run has said, as far as the caller hears it."""
    events: list[Event] = [Started(call.id, call.program)] if isinstance(result, Predicted) else []
    for event in events + said if call.stream else events:
        if not sink.push(event):
            await sink.room()
