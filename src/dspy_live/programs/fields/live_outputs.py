"""The predictor behind each text output, for doors that can't take words back."""

from __future__ import annotations

from typing import Any

import dspy

_TRIES = (dspy.BestOfN, dspy.Refine)
"""Modules that call the module inside them several times and choose one answer at the end."""


def live_outputs(program: Any) -> dict[str, str] | None:
    """Return the path of the predictor behind each ``str`` output that can be given out while it streams.

    Where several predictors have an output of one name, the last is taken for the one that the program
    gives on, as for its schema. ``None`` for a program whose predictors can't be seen.
    """
    if not isinstance(program, dspy.Module):
        return None
    hidden = {
        id(predictor)
        for _, module in program.named_sub_modules(dspy.Module)
        if isinstance(module, _TRIES)
        for predictor in module.predictors()
    }
    live: dict[str, str] = {}
    for path, predictor in program.named_predictors():
        for name, field in predictor.signature.output_fields.items():
            if id(predictor) in hidden:
                live.pop(name, None)
            elif field.annotation is str:
                live[name] = path
    return live
