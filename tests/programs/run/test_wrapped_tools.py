"""A method that another tool has put around ``dspy.Tool.acall`` sees the calls whose functions run in threads too."""

from __future__ import annotations

import functools
import threading
from typing import Any

import dspy
import pytest

from dspy_live import asyncify


class Uses(dspy.Module):  # type: ignore[misc]
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.tool = dspy.Tool(function)

    async def aforward(self, n: int) -> Any:
        return dspy.Prediction(answer=await self.tool.acall(n=n))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tools that a recorder hears of; it was there before the first run."""
    names: list[str] = []
    acall = dspy.Tool.acall
    own = acall.__wrapped__ if getattr(acall, "_dspy_live", False) else acall

    async def recorded(self: Any, **kwargs: Any) -> Any:
        names.append(self.name)
        return await own(self, **kwargs)

    monkeypatch.setattr(dspy.Tool, "acall", recorded)
    return names


async def test_it_is_recorded_once_and_runs_in_a_thread(seen: list[str]) -> None:
    """Our method was around the recorder's, and passed it by: OpenInference had no span of such a tool."""
    threads: list[int] = []

    def double(n: int) -> int:
        """Double it."""
        threads.append(threading.get_ident())
        return 2 * n

    program = Uses(double)
    assert (await asyncify(program)(n=2)).answer == 4
    assert seen == ["double"]
    assert threads != [threading.get_ident()]
    assert program.tool.func is double


async def test_its_failure_passes_through_the_recorder(seen: list[str]) -> None:
    def fail(n: int) -> int:
        """Fail."""
        raise KeyError(n)

    with pytest.raises(KeyError):
        await asyncify(Uses(fail))(n=2)
    assert seen == ["fail"]


async def test_a_tool_that_is_a_partial_function_is_called_once(seen: list[str]) -> None:
    calls: list[int] = []

    def add(m: int, n: int) -> int:
        """Add."""
        calls.append(n)
        return m + n

    assert (await asyncify(Uses(functools.partial(add, 1)))(n=2)).answer == 3
    assert calls == [2]
    assert len(seen) == 1


async def test_an_asynchronous_tool_stays_on_the_loop(seen: list[str]) -> None:
    async def here(n: int) -> int:
        """Say where."""
        return threading.get_ident()

    assert (await asyncify(Uses(here))(n=2)).answer == threading.get_ident()
    assert seen == ["here"]
