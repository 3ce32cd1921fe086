"""The methods of DSPy in whose place the runs put their own; each of the modules imported here says what its own do."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_live.programs.run.tool_thread import install as let_tools_run_in_threads
from dspy_live.programs.stock.modules import install as shorten_module_calls
from dspy_live.programs.stock.predict import install as shorten_stock_predictors

_replaced: tuple[Any, ...] = ()


def replace_methods_of_dspy() -> None:
    """Put our methods in the place of DSPy's, at the first run, and again where somebody has put others there since."""
    global _replaced
    if _methods_of_dspy() != _replaced:
        let_tools_run_in_threads()
        shorten_stock_predictors()
        shorten_module_calls()
        _replaced = _methods_of_dspy()


def _methods_of_dspy() -> tuple[Any, ...]:
    predict, module = dspy.Predict, dspy.Module
    return dspy.Tool.acall, predict.forward, predict.aforward, module.__call__, module.acall
