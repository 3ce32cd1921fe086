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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits of the protocol are short, but for the lease: who stands still for a while is not dead."""
    for name, seconds in {"BEAT": 0.05, "LEASE": 60.0, "SETTLE": 0.2, "REST": 0.05, "TELL": 0.01}.items():
        monkeypatch.setattr(line, name, seconds)


@pytest.fixture
def unsettled(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``quick``; a server that came back empty grants nothing until the test ends that time."""
    monkeypatch.setattr(line, "SETTLE", 60.0)
