"""LM objects that are not ours, a user's own ``BaseLM`` for one, stream through DSPy's ``send_stream``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dspy_live.core.events import TextDelta
from dspy_live.programs.fields.field_stream import FieldStream
from dspy_live.programs.fields.origin import current_stream, origin_of
from dspy_live.programs.internals import _adapter_call, settings
from dspy_live.programs.lm.foreign_usage import ForeignUsage
from dspy_live.programs.lm.results import text_of
from dspy_live.programs.run.run import Run, current_run


class ForeignStream(FieldStream):
    """The sink of an LM that hands its chunks to ``send_stream``, or only its whole reply."""

    __slots__ = ("_streamed",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._streamed = False

    def chunk(self, text: str) -> bool:
        """Take a piece that the LM streamed itself."""
        self._streamed = True
        return self.push(TextDelta(text))

    def whole(self, outputs: Any) -> None:
        """The LM has answered. One that did not stream says it all at once."""
        text = text_of(outputs[0]) if outputs else ""
        if not self._streamed:
            self.push(TextDelta(text))
        self.finish(text)


class _SendStream:
    """Stands in for DSPy's ``send_stream`` while a foreign LM is called."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def send(self, chunk: Any) -> None:
        """Take one chunk of the user's LM: text, or something shaped like a provider's chunk."""
        stream = _stream_of(self._run)
        if stream is None:
            return
        text = chunk if isinstance(chunk, str) else _content(chunk)
        if text and not stream.chunk(text):
            await stream.room()


@contextmanager
def foreign_call(lm: Any) -> Iterator[None]:
    """Let a foreign LM that is called within stream into the run, where the run streams, and book its usage."""
    run = current_run()
    if run is None:
        yield
        return
    usage = ForeignUsage(run, lm)
    changes: dict[str, Any] = {"usage_tracker": usage}
    if run.call.stream:
        changes["send_stream"] = _SendStream(run)
    try:
        with settings.context(**changes):
            yield
    except BaseException as exc:
        usage.ended(exc)
        raise
    usage.ended(None)


def replied(run: Run, adapter: Any, signature: Any, outputs: Any) -> None:
    """A foreign LM has answered the messages that ``adapter`` made for ``signature``."""
    messages = next((m for m, a, s in run.formatted.values() if a is adapter and s is signature), None)
    stream = origin_of(run, messages, ForeignStream)[1] if messages is not None else current_stream(run)
    if isinstance(stream, ForeignStream):
        stream.whole(outputs)


def _stream_of(run: Run) -> ForeignStream | None:
    adapter_call = _adapter_call.get()
    messages = adapter_call[1] if adapter_call else None
    if id(messages) in run.formatted:
        stream = origin_of(run, messages, ForeignStream)[1]
    else:
        stream = current_stream(run)
    return stream if isinstance(stream, ForeignStream) else None


def _content(chunk: Any) -> str:
    try:
        return chunk.choices[0].delta.content or ""
    except (AttributeError, IndexError, TypeError):
        return ""
