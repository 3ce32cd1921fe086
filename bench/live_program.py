"""The benchmarks' program for ``dspy-live serve``."""

from __future__ import annotations

import os

import dspy

import dspy_live

dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini", api_base=os.environ["BENCH_LM"], api_key="none", cache=False))
program = dspy.Predict("question -> answer")
