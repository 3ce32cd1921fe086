"""What tests of layers begin and end with."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest

from dspy_live.runtime.stores import line


@pytest.fixture(autouse=True)
def _no_line_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A limit whose server has ended with its test would miss it in the log of the next one."""
    made: list[weakref.ref[line.Line]] = []
    begin = line.Line._begin

    def beginning(self: line.Line) -> None:
        made.append(weakref.ref(self))
        begin(self)

    monkeypatch.setattr(line.Line, "_begin", beginning)
    line._lines.clear()
    yield
    for one in filter(None, (of_one() for of_one in made)):
        one.soon = lambda *_: None  # type: ignore[method-assign]
        with one._changed:
            one._due.clear()
