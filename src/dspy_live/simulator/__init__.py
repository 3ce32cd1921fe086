"""The simulated LM: plausible, well-formed, seeded answers, in the process or as a server, with faults on request."""

from __future__ import annotations

from dspy_live.simulator.answer import Reply, answer, reply

__all__ = ["Reply", "answer", "reply"]
