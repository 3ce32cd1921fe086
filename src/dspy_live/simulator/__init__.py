"""The simulated LM: plausible, well-formed, seeded answers, in the process or as a server, with faults on request."""

from __future__ import annotations

from dspy_live.simulator.answer import Reply, answer, reply
from dspy_live.simulator.faults import FaultName, Faults
from dspy_live.simulator.inprocess import InProcessLM
from dspy_live.simulator.options import Options
from dspy_live.simulator.server import Simulator
from dspy_live.simulator.stats import Disconnect, Served, Stats

__all__ = [
    "Disconnect",
    "FaultName",
    "Faults",
    "InProcessLM",
    "Options",
    "Reply",
    "Served",
    "Simulator",
    "Stats",
    "answer",
    "reply",
]
