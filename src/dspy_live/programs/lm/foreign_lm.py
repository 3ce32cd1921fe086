"""LM objects that are not ours, a user's own ``BaseLM`` for one, stream through DSPy's ``send_stream``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dspy_live.programs.fields.field_stream import Speech
from dspy_live.programs.fields.origin import speaker_of, speech_now
from dspy_live.programs.internals import _adapter_call, settings
from dspy_live.programs.lm.foreign_usage import ForeignBooks
from dspy_live.programs.run.run import Run, current_run


class Foreign(Speech):
    """The speech of an LM that hands its chunks to ``send_stream``, or only its whole reply."""

    __slots__ = ("_heard",)

    def begin(self) -> None:
        """Nothing was heard yet."""
        self._heard = False

    def heard(self, text: str) -> bool:
        """Take a piece that the LM streamed itself."""
        self._heard = True
        return self.text(text)

    def whole(self, outputs: Any) -> None:
        """The LM has answered. One that did not stream says it all at once."""
        output = outputs[0] if outputs else ""
        text = output.get("text") if isinstance(output, dict) else output
        text = text if isinstance(text, str) else ""
        if not self._heard:
            self.text(text)
        self.finish(text)


class _Stream:
    """Stands in for DSPy's ``send_stream`` while a foreign LM is called."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def send(self, chunk: Any) -> None:
        """Take one chunk of the user's LM: text, or something shaped like a provider's chunk."""
        speech = _speech_of(self._run)
        if speech is None:
            return
        text = chunk if isinstance(chunk, str) else _content(chunk)
        if text and not speech.heard(text):
            await speech.room()


@contextmanager
def speaking_for(lm: Any) -> Iterator[None]:
    """Let a foreign LM that is called within stream into the run, where somebody takes tokens, and book it."""
    run = current_run()
    if run is None:
        yield
        return
    books = ForeignBooks(run, lm)
    changes: dict[str, Any] = {"usage_tracker": books}
    if run.call.stream:
        changes["send_stream"] = _Stream(run)
    try:
        with settings.context(**changes):
            yield
    except BaseException as exc:
        books.ended(exc)
        raise
    books.ended(None)


def replied(run: Run, adapter: Any, signature: Any, outputs: Any) -> None:
    """A foreign LM has answered the messages that ``adapter`` made for ``signature``."""
    waiting = next((m for m, a, s in run.formatted.values() if a is adapter and s is signature), None)
    speech = _began(run, waiting) if waiting is not None else speech_now(run)
    if isinstance(speech, Foreign):
        speech.whole(outputs)


def _speech_of(run: Run) -> Foreign | None:
    origin = _adapter_call.get()
    messages = origin[1] if origin else None
    if id(messages) in run.formatted:
        return _began(run, messages)
    speech = speech_now(run)
    return speech if isinstance(speech, Foreign) else None


def _began(run: Run, messages: Any) -> Foreign | None:
    speech = speaker_of(run, messages, Foreign).speech
    if isinstance(speech, Foreign):
        speech.begin()
        return speech
    return None


def _content(chunk: Any) -> str:
    try:
        return chunk.choices[0].delta.content or ""
    except (AttributeError, IndexError, TypeError):
        return ""
