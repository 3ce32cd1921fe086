"""The process's own account: the usage of all LM calls, in memory, thread-safe and cheap.

It stands in this room because programs write it, and layers, observers and servers read it.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol

from dspy_live.core.observer import RunObserver
from dspy_live.core.usage import Expected, LMRecord, LMUsage, Meter
from dspy_live.runtime.books.prices import Price, Prices
from dspy_live.runtime.books.totals import TotalsTable

logger = logging.getLogger("dspy_live.account")


_PRICES = Prices()


class MeterCarrier(Protocol):
    """Carries the meters in force along with the running code: through tasks, and through threads where it can."""

    def current(self) -> tuple[Meter, ...]:
        """The meters in force here, outermost first."""
        ...

    def entering(self, meter: Meter) -> AbstractContextManager[None]:
        """Put one more meter in force until the context is left."""
        ...


class ContextMeterCarrier:
    """Carries meters in a context variable: follows tasks and ``asyncio.to_thread``, not a user's own threads."""

    def __init__(self) -> None:
        self._meters: ContextVar[tuple[Meter, ...]] = ContextVar("dspy_live_meters", default=())

    def current(self) -> tuple[Meter, ...]:
        return self._meters.get()

    @contextmanager
    def entering(self, meter: Meter) -> Iterator[None]:
        token = self._meters.set((*self._meters.get(), meter))
        try:
            yield
        finally:
            self._meters.reset(token)


class Account:
    """Where every LM call of the process is booked.

    The engine asks :meth:`admit` before it sends a request, prices the reply with :meth:`price`, and books it with
    :meth:`record`. Totals are kept per (program, model, predictor, modules, key): one dictionary look-up per call.

    Args:
        carrier: carries the meters in force; ``programs`` installs one that follows DSPy's threads.
        prices: the price of tokens by model; the process's own by default.

    ``totals`` go on growing: ``copy()`` or ``minus()`` them to read.
    """

    def __init__(self, carrier: MeterCarrier | None = None, prices: Prices | None = None) -> None:
        self.carrier: MeterCarrier = carrier or ContextMeterCarrier()
        self.prices = prices if prices is not None else _PRICES
        self.totals = TotalsTable()
        self._completions: dict[str, int] = {}
        self._observers: tuple[RunObserver, ...] = ()
        self._lock = threading.Lock()

    def admit(self, meters: Sequence[Meter] = (), expected: Callable[[], Expected] = Expected) -> tuple[Meter, ...]:
        """Ask every meter in force, and ``meters`` besides, whether an LM call may be sent.

        Returns what stands for them in this call: hand it to :meth:`record`, which settles what they have reserved.
        Raises :class:`~dspy_live.core.errors.BudgetExceeded`; nothing is reserved then.

        Args:
            meters: asked besides those in force; one in both places is asked once.
            expected: returns what the call will probably use; called where a meter reserves it.
        """
        asked = self.in_force(meters)
        return _reserved(asked, expected) if asked else asked

    async def admit_async(
        self, meters: Sequence[Meter] = (), expected: Callable[[], Expected] = Expected
    ) -> tuple[Meter, ...]:
        """As :meth:`admit`, and wait for meters that ask a server (:class:`~dspy_live.core.usage.WaitingMeter`).

        Cancelled meanwhile, nothing is reserved.
        """
        asked = self.in_force(meters)
        if not any(hasattr(meter, "reserve_async") for meter in asked):
            return _reserved(asked, expected) if asked else asked
        return await _reserved_async(asked, expected)

    def in_force(self, meters: Sequence[Meter] = ()) -> tuple[Meter, ...]:
        """Return the meters in force here, and ``meters`` besides, each once."""
        asked = self.carrier.current()
        return (*asked, *(m for m in meters if m not in asked)) if meters else asked

    def expect(self, model: str, prompt_tokens: int, max_tokens: int | None = None) -> Expected:
        """Return what a call of ``model`` will probably use, and cost.

        The completion is taken to be as long as the last one of that model, and no longer than ``max_tokens``; before
        there was any, as ``max_tokens``, and as nothing where that is not given either.
        """
        seen = self._completions.get(model)
        known = [tokens for tokens in (seen, max_tokens) if tokens is not None]
        completion = min(known, default=0)
        usage = LMUsage(prompt_tokens, completion, prompt_tokens + completion, estimated=True)
        return Expected(model, usage, self.price(model, usage))

    def price(self, model: str, usage: LMUsage) -> float | None:
        """Return the cost of ``usage`` of ``model`` in US dollars, or ``None`` when a price is unknown."""
        return self.prices.cost(model, usage)

    def record(self, record: LMRecord, meters: Sequence[Meter] | None = None) -> None:
        """Book one exchange, here and with ``meters`` (those that :meth:`admit` returned; else those in force here)."""
        self.totals.add(record)
        if record.error is None and record.usage:
            self._completions[record.model] = record.usage.completion_tokens
        for meter in self.carrier.current() if meters is None else meters:
            meter.record(record)
        tell(self._observers, "lm_call_ended", record)

    @property
    def observers(self) -> tuple[RunObserver, ...]:
        """The observers of runs and LM calls, in the order in which they were added."""
        return self._observers

    def observe(self, observer: RunObserver) -> Callable[[], None]:
        """Call ``observer`` for every run and LM call from now on. Returns a function that ends this."""
        with self._lock:
            self._observers = (*self._observers, observer)

        def stop() -> None:
            with self._lock:
                self._observers = tuple(o for o in self._observers if o is not observer)

        return stop


def _reserved(asked: Sequence[Meter], expected: Callable[[], Expected]) -> tuple[Meter, ...]:
    estimate: Expected | None = None
    held: list[Any] = []
    admitted: list[Meter] = []
    try:
        for meter in asked:
            reserve: Callable[[Expected], Meter] | None = getattr(meter, "reserve", None)
            if reserve is None:
                meter.check()
                admitted.append(meter)
                continue
            estimate = estimate if estimate is not None else expected()
            held.append(reserve(estimate))
            admitted.append(held[-1])
    except BaseException:
        for reservation in held:
            reservation.release()
        raise
    return tuple(admitted)


async def _reserved_async(asked: Sequence[Meter], expected: Callable[[], Expected]) -> tuple[Meter, ...]:
    admitted: tuple[Meter, ...] = ()
    estimate = functools.cache(expected)
    try:
        for meter in asked:
            reserve: Callable[[Expected], Awaitable[Meter]] | None = getattr(meter, "reserve_async", None)
            if reserve is None:
                admitted = (*admitted, *_reserved((meter,), estimate))
            else:
                admitted = (*admitted, await reserve(estimate()))
    except BaseException:
        for meter in admitted:
            if hasattr(meter, "release"):
                meter.release()
        raise
    return admitted


def tell(
    observers: Sequence[RunObserver],
    what: Literal["run_started", "lm_call_ended", "run_ended"],
    *told: Any,
) -> None:
    """Call the method ``what`` of each observer; one that raises is logged, and the others and the run go on."""
    for observer in observers:
        try:
            getattr(observer, what)(*told)
        except Exception:
            logger.exception("an observer failed and is ignored: %s.%s", type(observer).__name__, what)


_PROCESS = Account()


def set_prices(prices: Mapping[str, Price | Mapping[str, float]]) -> None:
    """Set the prices of models for this process, in US dollars per million tokens.

    ``set_prices({"openai/my-model": {"input": 0.15, "output": 0.6}})``. The names and the other parts of a price are
    described at :class:`~dspy_live.runtime.books.prices.Prices` and
    :class:`~dspy_live.runtime.books.prices.Price`. These prices
    come before those of any table. Raises :class:`~dspy_live.core.errors.ConfigurationError` for anything else.
    """
    _PRICES.set(prices)


def process_account() -> Account:
    """Return the account of this process, the one that an engine uses unless it is given another."""
    return _PROCESS
