"""What ``JSONAdapter`` asks of an LM beside the messages: a reply in the form of a schema, or any JSON object."""

from __future__ import annotations

import copy
from typing import Any

from dspy_live.programs.lm.capabilities import EngineMark
from dspy_live.programs.stock.plan import Plan


def json_options(plan: Plan, adapter: Any, lm: Any, signature: Any) -> dict[str, Any] | None:
    """Return the options that ``JSONAdapter`` gives ``lm``; ``None`` for an LM with an engine of the user's own.

    DSPy makes a class of the schema anew for each call, in a millisecond. Here it is made once for what an LM can do.
    """
    engine = lm._engine_spec
    if type(engine) is not EngineMark:
        return None
    can = engine.capabilities
    known = ("response_format" in can.params, can.response_schema, adapter.use_native_function_calling)
    options = plan.formats.get(known)
    if options is None:
        options = {}
        plan.adapter._prepare_response_format(adapter, lm, options, signature)
        _keep_schema(options.get("response_format"))
        plan.formats[known] = options
    return {name: value if isinstance(value, type) else dict(value) for name, value in options.items()}


def _keep_schema(response_format: Any) -> None:
    """Let nobody who is given the schema of a class change it for the next call."""
    if isinstance(response_format, type):
        schema: Any = response_format.model_json_schema()  # type: ignore[attr-defined]
        response_format.model_json_schema = lambda *args, **kwargs: copy.deepcopy(schema)  # type: ignore[attr-defined]
