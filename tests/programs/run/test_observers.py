"""Who looks on must never change a run: an observer that raises is logged, and everybody else goes on."""

from __future__ import annotations

import logging
from typing import Any

import dspy
import pytest
from tests.programs.conftest import Sim

from dspy_live import Runtime, asyncify, streamify
from dspy_live.runtime.books.account import Account

HOOKS = ("run_started", "lm_call_ended", "run_ended")


class Looker:
    """Hears everything, and raises in one of the hooks."""

    def __init__(self, broken: str = "") -> None:
        self.heard: list[str] = []
        for hook in HOOKS:
            setattr(self, hook, lambda *told, hook=hook: self._hear(hook, broken))

    def _hear(self, hook: str, broken: str) -> None:
        self.heard.append(hook)
        if hook == broken:
            raise RuntimeError("the observer is broken")


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_broken_observer_ends_no_run(sim: Sim, hook: str, way: Any, caplog: Any) -> None:
    account, broken, other = Account(), Looker(hook), Looker()
    account.observe(broken)  # type: ignore[arg-type]
    account.observe(other)  # type: ignore[arg-type]
    runtime = Runtime(account=account)
    with dspy.context(lm=sim.lm()), caplog.at_level(logging.ERROR):
        stream = streamify(dspy.Predict("question -> answer"), execution=way, runtime=runtime)
        items = [item async for item in stream(question="q")]
        assert items[-1].answer
        assert (await asyncify(dspy.Predict("question -> answer"), execution=way, runtime=runtime)(question="q")).answer
    assert broken.heard == other.heard
    assert set(other.heard) == set(HOOKS)
    assert f"Looker.{hook}" in caplog.text
    assert "the observer is broken" in caplog.text
