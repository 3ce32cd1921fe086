"""Fits the account to DSPy: its prices, and scopes that follow DSPy's own threads.

``dspy.Parallel`` copies DSPy's settings into its threads and nothing else, so that a plain context variable is lost
there. The meters in force travel in the settings instead, under a key of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dspy_live.core.usage import Meter
from dspy_live.programs.internals import overrides, settings
from dspy_live.programs.prices_dspy import price_of
from dspy_live.runtime.account import Account, ScopeCarrier, process_account

KEY = "dspy_live_meters"


class SettingsCarrier:
    """Carries meters in ``dspy.settings``; those that an earlier carrier put in force stay so."""

    def __init__(self, before: ScopeCarrier) -> None:
        self._before = before

    def current(self) -> tuple[Meter, ...]:
        return (*self._before.current(), *overrides().get(KEY, ()))

    @contextmanager
    def entering(self, meter: Meter) -> Iterator[None]:
        with settings.context(**{KEY: (*overrides().get(KEY, ()), meter)}):
            yield


def install(account: Account) -> None:
    """Let ``account`` use DSPy's settings and DSPy's table of prices. Doing it twice changes nothing."""
    if not isinstance(account.carrier, SettingsCarrier):
        account.carrier = SettingsCarrier(account.carrier)
        account.prices.use_table(price_of)


install(process_account())
