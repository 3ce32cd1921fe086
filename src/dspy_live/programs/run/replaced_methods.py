"""The methods of DSPy in whose place the runs put their own; each of the modules imported here says what its own do."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import dspy

from dspy_live.programs.run.tool_thread import install as let_tools_run_in_threads
from dspy_live.programs.stock.modules import install as shorten_module_calls
from dspy_live.programs.stock.predict import install as shorten_stock_predictors

_methods_of = attrgetter("Tool.acall", "Predict.forward", "Predict.aforward", "Module.__call__", "Module.acall")
_replaced: tuple[Any, ...] = ()


def replace_methods_of_dspy() -> None:
    """Put our methods in the place of DSPy's, at the first run, and again where somebody has put others there since."""
    global _replaced
    if _methods_of(dspy) != _replaced:
        let_tools_run_in_threads()
        shorten_stock_predictors()
        shorten_module_calls()
        _replaced = _methods_of(dspy)
