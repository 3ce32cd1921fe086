"""Keeps users' inputs out of the log, where that is chosen."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.log_context import current_log_context

MAX_FAILED = 100
"""Failed runs whose inputs are remembered: a server logs a failure when the run has ended."""

_FIELDS = frozenset(
    "prompt prompts messages input inputs output outputs completion completions content question answer response reply "
    "reasoning text".split()
)
_OWN = ("run", "program", "predictor", "level", "logger", "timestamp")
_SHORTEST = 4
"""Inputs shorter than this are not searched for in lines: they would hide half of the language."""
_RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")


class PromptHider:
    """Takes the inputs of a run out of every line that is written inside of it, or names it when it has failed.

    A processor of structlog's, and a :class:`~dspy_live.core.observer.RunObserver` until it is closed.
    """

    def __init__(self, account: Account | None = None) -> None:
        self._failed: dict[str, Call] = {}
        self._running: dict[str, Call] = {}
        self._stop: Callable[[], None] = (account or process_account()).observe(self)

    def close(self) -> None:
        """Stop observing, and forget the failed runs."""
        self._stop()
        self._running.clear()
        self._failed.clear()

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return a line's fields without the run's inputs."""
        words = sorted({form for call in self._calls(event) for form in _forms(call)}, key=len, reverse=True)
        for name, value in list(event.items()):
            if name in _FIELDS:
                event[name] = f"[hidden: {len(str(value))} characters]"
            elif name not in _OWN:
                event[name] = _without(value, words)
        return event

    def _calls(self, event: Mapping[str, Any]) -> Iterator[Call]:
        context = current_log_context()
        if context is not None:
            yield context.call
        elif isinstance(event.get("event"), str):
            for run in set(_RUN_ID.findall(event["event"])):
                call = self._running.get(run) or self._failed.get(run)
                if call is not None:
                    yield call

    # A RunObserver.

    def run_started(self, call: Call) -> None:
        self._running[call.id] = call

    def lm_call_ended(self, record: LMRecord) -> None: ...

    def run_ended(self, record: RunRecord) -> None:
        call = record.call
        self._running.pop(call.id, None)
        if record.error is not None:
            self._failed[call.id] = call
            for oldest in list(self._failed)[:-MAX_FAILED]:
                self._failed.pop(oldest, None)


def _forms(call: Call) -> Iterator[str]:
    for text in _texts([call.inputs, call.args]):
        # Lines often hold a text as Python or JSON would write it.
        for form in (text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
            if len(form) >= _SHORTEST:
                yield form


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple | set | frozenset):
        return [text for item in value for text in _texts(item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _texts([getattr(value, field.name) for field in dataclasses.fields(value)])
    if hasattr(type(value), "model_fields"):  # pydantic's
        return _texts(list(vars(value).values()))
    return []


def _without(value: Any, words: list[str]) -> Any:
    if isinstance(value, bool | int | float | type(None)) or not words:
        return value
    text = value if isinstance(value, str) else str(value)
    hidden = text
    for word in words:
        hidden = hidden.replace(word, "[hidden]")
    return value if hidden == text else hidden


__all__ = ["MAX_FAILED", "PromptHider"]
