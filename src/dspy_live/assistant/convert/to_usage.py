"""``convert usage``, ``caching``, ``logging``: print a run's usage, its cache hits, its log."""

from __future__ import annotations

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert.importing import add_imports
from dspy_live.assistant.convert.names import reads
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.scope import around, running_or_example
from dspy_live.assistant.convert.source import Source
from dspy_live.assistant.convert.swap import uses, with_live_lm


def to_usage(text: str, notes: Notes, program: str | None = None) -> str:
    """Return the source with its runs inside a ``UsageTracker`` and a report after them."""
    source = Source(text)
    if uses(source, "dspy_live.UsageTracker"):
        notes.add("left", "The file tracks its usage with dspy_live.UsageTracker already.")
        return text
    source, running = running_or_example(source, notes, program)
    name = _free(source, "usage", "usage_tracker", "live_usage")
    stats = _free(source, "stats", "usage_stats", "live_usage_stats")
    report = (
        f"print(\n"
        f"    f\"{{{stats}['total_tokens']}} tokens in {{{stats}['api_calls']}} LM calls, \"\n"
        f"    f\"{{{stats}['cache_hits']}} answers from the cache, ${{{stats}['total_cost']:.4f}}\"\n"
        f"    f\" ({{{stats}['unpriced_calls']}} calls of unknown price)\"\n"
        f")"
    )
    module = around(
        source, running, within=f"dspy_live.UsageTracker() as {name}", after=[f"{stats} = {name}.get_stats()", report]
    )
    notes.add(
        "changed", "What runs the program is inside a dspy_live.UsageTracker, and its statistics are printed after it."
    )
    notes.add("advice", f"{name}.export('usage.csv') writes them to a file; {stats}['by_predictor'] splits them.")
    return with_live_lm(add_imports(module, ["dspy_live"]).code, notes)


def to_caching(text: str, notes: Notes, program: str | None = None) -> str:
    """Return the source with the cache on for every LM, and its statistics printed after the runs."""
    source = Source(text)
    if uses(source, "dspy_live.cache.stats"):
        notes.add("left", "The file prints dspy_live.cache.stats() already.")
        return text
    enabled = _cache_on(source, notes)
    source, running = running_or_example(enabled, notes, program)
    stats = _free(source, "cached", "cache_stats", "live_cache_stats")
    report = (
        f"print(f\"cache: {{{stats}['hits']}} hits, {{{stats}['misses']}} misses, {{{stats}['entries']}} entries\")"
    )
    module = around(source, running, after=[f"{stats} = dspy_live.cache.stats()", report])
    notes.add("changed", "The cache's hits and misses are printed after the runs.")
    notes.add(
        "advice",
        'Answers are kept across runs, in DSPY_CACHEDIR. config={"rollout_id": 1, "temperature": 1.0} in a call asks '
        "the LM anew; dspy_live.cache.clear() forgets everything.",
    )
    return with_live_lm(add_imports(module, ["dspy_live"]).code, notes)


def to_logging(text: str, notes: Notes, program: str | None = None, stem: str = "program", package: str = "") -> str:
    """Return the source with structured logs set up before it runs anything."""
    source = Source(text)
    if uses(source, "dspy_live.setup_logging"):
        notes.add("left", "The file sets up dspy_live's logging already.")
        return text
    source, running = running_or_example(source, notes, program)
    setup = f'dspy_live.setup_logging("INFO", file="{stem}.log")'
    module = around(
        source,
        running,
        before=[setup, 'dspy_live.log_structured("INFO", "started")'],
        after=['dspy_live.log_structured("INFO", "finished")'],
    )
    notes.add("changed", f"Structured logs go to {stem}.log; your own loggers are included, keys are redacted.")
    return with_live_lm(add_imports(module, ["dspy_live"]).code, notes)


def _cache_on(source: Source, notes: Notes) -> Source:
    """``cache=False`` of an LM becomes ``cache=True``."""
    pattern = m.Arg(keyword=m.Name("cache"), value=m.Name("False"))
    calls = [
        call
        for call in m.findall(source.module, m.Call(args=[m.ZeroOrMore(), pattern, m.ZeroOrMore()]))
        if isinstance(call, cst.Call) and (source.imports.qualified(call.func) or "").endswith(".LM")
    ]
    if not calls:
        return source
    args = {arg for call in calls for arg in call.args if m.matches(arg, pattern)}
    module = source.module.visit(_CacheOn(args))
    assert isinstance(module, cst.Module)
    notes.add("changed", "An LM was made with cache=False; it caches now.", source.line(calls[0]))
    return Source(module.code, first_pass=False)


class _CacheOn(cst.CSTTransformer):
    def __init__(self, args: set[cst.Arg]) -> None:
        super().__init__()
        self.args = args

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(value=cst.Name("True")) if original_node in self.args else updated_node


def _free(source: Source, *names: str) -> str:
    taken = reads(source.module)
    return next((name for name in names if name not in taken), names[-1])
