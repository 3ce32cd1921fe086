"""The types of what ``UsageTracker.get_stats()`` returns; its sums are those of ``runtime.books.totals.Totals``."""

from __future__ import annotations

from typing import TypedDict


class UsageSums(TypedDict):
    """Sums over requests to LMs. Tokens are counts; ``total_cost`` is US dollars, of the requests that have a price."""

    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    total_cost: float
    api_calls: int
    cache_hits: int
    cache_misses: int
    errors: int
    unpriced_calls: int
    estimated_calls: int
    estimated_tokens: int


class ProgramUsage(UsageSums):
    """The sums of one program, and of each of its predictors by its path."""

    by_predictor: dict[str, UsageSums]


class UsageStatistics(UsageSums):
    """All sums: in total, and by model, predictor, module and program. ``unpriced_models`` have no price."""

    unpriced_models: list[str]
    by_model: dict[str, UsageSums]
    by_predictor: dict[str, UsageSums]
    by_module: dict[str, UsageSums]
    by_program: dict[str, ProgramUsage]
