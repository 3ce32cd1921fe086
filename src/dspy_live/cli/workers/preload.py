"""What every worker needs, imported once in the process that workers are forked from.

Nothing here may start a thread or a loop, open a socket, or load the user's program. What is loaded is taken out of the
garbage collector's sight, so that its pages stay shared between the workers.
"""

from __future__ import annotations

import gc
from importlib import import_module

MODULES = (
    "dspy_live.cli.workers.process",
    "dspy_live.loading.simulated_lm",
    "dspy_live.observe.ledger",
    "dspy_live.observe.logs",
    "dspy_live.observe.metrics",
    "dspy_live.observe.otel_metrics",
    "dspy_live.programs.lm.lm",
    "structlog.dev",
    "uvicorn.lifespan.on",
    "uvloop",
)

for _name in MODULES:
    import_module(_name)
gc.collect()
gc.freeze()
