"""Fits the account and the logs to DSPy: its prices, meters that follow DSPy's own threads, the run of a log line.

``dspy.Parallel`` copies DSPy's settings into its threads and nothing else, so that a plain context variable is lost
there. The meters in force travel in the settings instead, under a key of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dspy_live.core.usage import Meter
from dspy_live.programs.internals import overrides, thread_local_overrides
from dspy_live.programs.lm.prices import price_of
from dspy_live.programs.run.run import current_run
from dspy_live.runtime.books.account import Account, MeterCarrier, process_account
from dspy_live.runtime.log_context import LogContext, programs_loaded

KEY = "dspy_live_meters"


class SettingsCarrier:
    """Carries meters in ``dspy.settings``; those that an earlier carrier put in force stay so."""

    def __init__(self, before: MeterCarrier) -> None:
        self._before = before

    def current(self) -> tuple[Meter, ...]:
        before, mine = self._before.current(), overrides().get(KEY)
        return before if mine is None else (*before, *mine)

    @contextmanager
    def entering(self, meter: Meter) -> Iterator[None]:
        # Not dspy.context: it freezes every other setting too, and a dspy.configure inside the scope would go unseen.
        before = overrides()
        token = thread_local_overrides.set(type(before)({**before, KEY: (*before.get(KEY, ()), meter)}))
        try:
            yield
        finally:
            thread_local_overrides.reset(token)


def install(account: Account) -> None:
    """Let ``account`` use DSPy's settings and DSPy's table of prices. Doing it twice changes nothing."""
    if not isinstance(account.carrier, SettingsCarrier):
        account.carrier = SettingsCarrier(account.carrier)
        account.prices.use_table(price_of)


def where() -> LogContext | None:
    """Return the run, and the predictor or module, that the calling code is part of; ``None`` outside of any run."""
    run = current_run()
    if run is None:
        return None
    modules = overrides().get("caller_modules")
    return LogContext(run.call, run.program, run.names.path(modules[-1]) if modules else "")


install(process_account())
programs_loaded(where)
