"""A prediction of one completion, as ``dspy.Prediction.from_completions`` makes it, in a fifth of its time."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_live.programs.internals import Completions

_make = dspy.Prediction.from_completions.__func__
_init = dspy.Prediction.__init__


def prediction_of(values: list[dict[str, Any]], signature: Any) -> dspy.Prediction:
    """Return the prediction with these output fields, one dictionary for each completion."""
    kind: Any = dspy.Prediction
    if len(values) != 1 or kind.__init__ is not _init or kind.from_completions.__func__ is not _make:
        return kind.from_completions(values, signature=signature)
    (fields,) = values
    completions: Any = object.__new__(Completions)
    completions.__dict__ = {"signature": signature, "_completions": {name: [value] for name, value in fields.items()}}
    made: Any = object.__new__(kind)
    object.__setattr__(made, "__dict__", {"_store": dict(fields), "_completions": completions, "_lm_usage": None})
    return made
