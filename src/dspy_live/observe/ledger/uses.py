"""The models and predictors of a run, as one text in its row: runs of one model are found without their LM calls.

Each pair stands between marks, ``newline model tab predictor newline``, so that a piece of the text tells whether a
run has used a model, a predictor, or both together.
"""

from __future__ import annotations

from functools import lru_cache

_BETWEEN, _AROUND = "\t", "\n"
_NO_MARKS = str.maketrans(_BETWEEN + _AROUND, "  ")

MIGRATION = (
    "ALTER TABLE runs ADD COLUMN uses {text}",
    {
        "sqlite": "UPDATE runs SET uses = (SELECT group_concat(DISTINCT char(10) || model || char(9) || predictor "
        "|| char(10)) FROM lm_calls WHERE run = runs.id)",
        "postgres": "UPDATE runs SET uses = used.pairs FROM (SELECT run, string_agg(DISTINCT chr(10) || model || "
        "chr(9) || predictor || chr(10), '') AS pairs FROM lm_calls GROUP BY run) AS used WHERE used.run = runs.id",
    },
    # SQLite reads this index in place of the rows, which may have inputs and outputs; PostgreSQL keeps those elsewhere,
    # and allows no long text in an index.
    {"sqlite": "DROP INDEX runs_started"},
    {"sqlite": "CREATE INDEX runs_summed ON runs (started, uses, program, key, error, duration, ttft)"},
)
"""The step that adds the text to the runs of an older ledger."""


@lru_cache(maxsize=256)
def uses_of(pairs: frozenset[tuple[str, str]]) -> str:
    """Return the text for a run that has used these models by these predictors."""
    return "".join(_piece(model, predictor) for model, predictor in sorted(pairs))


def piece_of(model: str | None, predictor: str | None) -> str:
    """Return the piece that the text of each run has which has used the model, the predictor, or one by the other."""
    if predictor is None:
        return f"{_AROUND}{_clean(model or '')}{_BETWEEN}"
    return _piece(model, predictor) if model is not None else f"{_BETWEEN}{_clean(predictor)}{_AROUND}"


def _piece(model: str, predictor: str) -> str:
    return f"{_AROUND}{_clean(model)}{_BETWEEN}{_clean(predictor)}{_AROUND}"


def _clean(name: str) -> str:
    return name.translate(_NO_MARKS)
