"""The ledger: one row per run and one per LM call, in SQLite or PostgreSQL."""

from dspy_live.observe.ledger.ledger import Ledger, default_place, open_ledger
from dspy_live.observe.ledger.query import GROUPS, Filter

__all__ = ["GROUPS", "Filter", "Ledger", "default_place", "open_ledger"]
