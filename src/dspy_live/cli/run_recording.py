"""Record the runs of a command: in the ledger, and as spans and metrics where a collector is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_live.observe.ledger import Ledger

NO_LEDGER = "none"


@contextmanager
def run_recording(place: str | None = None) -> Iterator[None]:
    """Write down the runs of this command, and send spans and metrics where the environment names a collector.

    A ledger that ``place`` or ``DSPY_LIVE_LEDGER`` names and that can't be opened is a
    :class:`~dspy_live.core.errors.ConfigurationError`; for the usual one a line on stderr says so, and nothing is
    written down. ``DSPY_LIVE_LEDGER=none`` writes nothing.
    """
    from dspy_live.observe.otel_metrics import otel_metrics_are_configured, setup_otel_metrics
    from dspy_live.observe.tracing import setup_tracing, tracing_is_configured

    ledger = _open(place)
    tracing = setup_tracing() if tracing_is_configured() else None
    metrics = setup_otel_metrics() if otel_metrics_are_configured() else None
    try:
        if ledger is not None:
            ledger.attach()
        yield
    finally:
        for sender in (tracing, metrics):
            if sender is not None:
                sender.close()
        if ledger is not None:
            ledger.close()


def _open(place: str | None) -> Ledger | None:
    from dspy_live.core.errors import ConfigurationError
    from dspy_live.observe.ledger import default_place, open_ledger

    named = place or os.environ.get("DSPY_LIVE_LEDGER")
    if named == NO_LEDGER:
        return None
    try:
        return open_ledger(named or default_place())
    except ConfigurationError as exc:
        if named:
            raise
        print(f"dspy-live: runs are not written down: {exc.message}", file=sys.stderr)
        return None
