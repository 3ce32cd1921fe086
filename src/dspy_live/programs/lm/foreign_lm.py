"""LM objects that are not ours, a user's own ``BaseLM`` for one: streamed through DSPy's ``send_stream``.

One that can't be awaited runs in a worker thread.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from anyio import from_thread

from dspy_live.core.events import TextDelta
from dspy_live.programs.fields.field_stream import FieldStream
from dspy_live.programs.fields.origin import current_stream, origin_of
from dspy_live.programs.internals import _adapter_call, settings
from dspy_live.programs.lm.foreign_usage import ForeignUsage
from dspy_live.programs.lm.lm import LM
from dspy_live.programs.lm.results import text_of
from dspy_live.programs.lm.seam.engine_objects import engine_lm_of
from dspy_live.programs.run.run import Run, current_run
from dspy_live.programs.run.tool_thread import call_in_thread, check


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
def foreign_call(lm: Any, *, awaited: bool = False) -> Iterator[None]:
    """Let a foreign LM that is called within stream into the run, where the run streams, and book its usage.

    A synchronous call has its whole reply told at once where DSPy can't hand on its chunks.
    """
    run = current_run()
    if run is None:
        yield
        return
    # Our own engine books what it asks, whatever LM it is the engine of.
    usage = None if engine_lm_of(lm) is not None else ForeignUsage(run, lm)
    changes: dict[str, Any] = {} if usage is None else {"usage_tracker": usage}
    if run.call.stream and (awaited or _in_a_thread_of_anyio()):
        changes["send_stream"] = _SendStream(run)
    try:
        with settings.context(**changes):
            yield
    except BaseException as exc:
        if usage is not None:
            usage.ended(exc)
        raise
    if usage is not None:
        usage.ended(None)


def _in_a_thread_of_anyio() -> bool:
    """True where DSPy's synchronous way finds the loop to hand chunks to: not on it, nor in a thread of DSPy's own."""
    known = getattr(from_thread, "threadlocals", None)
    return asyncio._get_running_loop() is None and hasattr(known, "current_token")


def awaitable(lm: Any) -> Any:
    """Return ``lm``, or where it is synchronous only a view of it that runs it in a worker thread when it is awaited.

    The view shares the state of the user's object, which is not touched. Cancelling a call in a thread waits for it.
    """
    name = only_synchronous(lm)
    if not name:
        return lm
    base: Any = type(lm)
    view = object.__new__(_view_class(base, name))
    view.__dict__ = lm.__dict__
    view.threaded = lm
    return view


def holds_a_thread(lm: Any) -> bool:
    """True where a call of ``lm`` takes a worker thread, which can't be ended: it, or its engine, can't be awaited."""
    state = vars(lm) if isinstance(lm, dspy.LM) else {}
    if type(lm) in (dspy.LM, LM) and state.get("_engine_spec") == "auto" and state.keys().isdisjoint(_ASKING):
        return False  # the usual one
    own_engine = not isinstance(state.get("_engine_spec", "auto"), str)
    return (own_engine and state.get("_async_engine_spec") is None) or bool(only_synchronous(lm))


_ASKING = ("acall", "aforward", "forward")


def only_synchronous(lm: Any) -> str:
    """Return the name of the method that asks ``lm``, where awaiting it would ask something else; else an empty string.

    As for modules, the class that comes first decides: what it inherits is its parent's way to ask.
    """
    if not isinstance(lm, dspy.BaseLM):
        return ""
    # DSPy's own LM is asked on the loop where only its call is wrapped: logging needs no thread.
    names = (
        ["acall", "aforward", "forward"] if isinstance(lm, dspy.LM) else ["acall", "aforward", "__call__", "forward"]
    )
    for scope in (vars(lm), *(vars(cls) for cls in type(lm).__mro__[: type(lm).__mro__.index(dspy.BaseLM)])):
        found = next((name for name in names if name in scope), "")
        if found:
            return "" if found.startswith("a") else found
    return ""


@functools.cache
def _view_class(base: Any, name: str) -> Any:
    async def threaded(self: Any, *args: Any, **kwargs: Any) -> Any:
        check()
        outcome = await call_in_thread(functools.partial(getattr(self.threaded, name), *args, **kwargs))
        error, outcome.error = outcome.error, None
        if error is not None:
            try:
                raise error
            finally:
                error = None
        return outcome.value

    view: Any = type(
        base.__name__, (base,), {"__slots__": ("threaded",), "acall" if name == "__call__" else "aforward": threaded}
    )
    view.__qualname__, view.__module__ = base.__qualname__, base.__module__
    return view


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
