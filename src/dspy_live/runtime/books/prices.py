"""The prices of tokens. Unknown is not zero: a model without a price is counted and named, never guessed."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.usage import LMUsage

logger = logging.getLogger("dspy_live.prices")

_MILLION = 1_000_000


class Price(msgspec.Struct, frozen=True):
    """The price of one model, in US dollars per million tokens.

    Args:
        input: tokens of the prompt.
        output: tokens of the completion.
        cached_input: tokens read from the provider's prompt cache; as ``input`` when not given.
        cache_write: tokens written to it; as ``input`` when not given.
        reasoning: reasoning tokens; as ``output`` when not given.
        above: ``(tokens, price)`` pairs: the price of the whole exchange when its prompt is longer than that.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None
    above: tuple[tuple[int, Price], ...] = ()

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "cache_write", "reasoning"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"the price {name!r} must be US dollars per million tokens; got {value!r}")

    def cost(self, usage: LMUsage) -> float | None:
        """Return US dollars, or ``None`` for audio tokens, which no price here covers."""
        if usage.audio_tokens:
            return None
        price = self
        for tokens, higher in self.above:
            if usage.prompt_tokens > tokens:
                price = higher
        if not (usage.cached_tokens or usage.cache_write_tokens or usage.reasoning_tokens):
            return (usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / _MILLION
        fresh = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
        said = usage.completion_tokens - usage.reasoning_tokens
        cached = price.input if price.cached_input is None else price.cached_input
        written = price.input if price.cache_write is None else price.cache_write
        thought = price.output if price.reasoning is None else price.reasoning
        return (
            fresh * price.input
            + usage.cached_tokens * cached
            + usage.cache_write_tokens * written
            + said * price.output
            + usage.reasoning_tokens * thought
        ) / _MILLION


Lookup = Callable[[str], Price | None]


class Prices:
    """Prices by model name: the user's own first, then a table's, each looked up once per model.

    Args:
        own: the user's prices. A name matches the model's whole name (``"openai/gpt-4o"``) or the part after its
            provider; ``*`` stands for anything (``"ollama/*"``). The first match wins.
        lookup: the table, asked for models that ``own`` does not have. Must not use the network.
    """

    def __init__(self, own: Mapping[str, Price] | None = None, lookup: Lookup | None = None) -> None:
        self._own = dict(own or {})
        self._lookup = lookup
        self._known: dict[str, Price | None] = {}
        self._lock = threading.Lock()

    def set(self, prices: Mapping[str, Price | Mapping[str, float]]) -> None:
        """Add prices of the user's own, as :class:`Price` or as its fields by name.

        Calls that are already booked keep the cost they have. Raises
        :class:`~dspy_live.core.errors.ConfigurationError` for anything else.
        """
        new = {model: _as_price(model, price) for model, price in prices.items()}
        with self._lock:
            self._own = {**self._own, **new}
            self._known = {}

    def use_table(self, lookup: Lookup | None) -> None:
        """Ask ``lookup`` for models that have no price of the user's own."""
        with self._lock:
            self._lookup = lookup
            self._known = {}

    def price(self, model: str) -> Price | None:
        """Return the price of a model, ``None`` when there is none. The first time for a model, that is logged."""
        try:
            return self._known[model]
        except KeyError:
            return self._find(model)

    def cost(self, model: str, usage: LMUsage) -> float | None:
        """Return the cost of ``usage`` of ``model`` in US dollars, or ``None`` when a price is unknown."""
        price = self._known.get(model) or self.price(model)
        return price.cost(usage) if price is not None else None

    def _find(self, model: str) -> Price | None:
        with self._lock:
            if model in self._known:
                return self._known[model]
            found = self._of_own(model)
            if found is None and self._lookup is not None:
                found = self._lookup(model)
            self._known[model] = found
        if found is None:
            logger.warning(
                "no price is known for the model %r: its calls are counted in unpriced_calls and cost nothing in the "
                "totals; give a price with dspy_live.set_prices({%r: {'input': ..., 'output': ...}}), or in [prices] "
                "of dspy-live.toml",
                model,
                model,
            )
        return found

    def _of_own(self, model: str) -> Price | None:
        short = model.partition("/")[2]
        exact = self._own.get(model) or self._own.get(short)
        if exact is not None:
            return exact
        return next((p for name, p in self._own.items() if "*" in name and fnmatchcase(model, name)), None)


def _as_price(model: str, price: Price | Mapping[str, float]) -> Price:
    if isinstance(price, Price):
        return price
    try:
        return msgspec.convert(dict(price), Price)
    except (msgspec.ValidationError, TypeError, ValueError) as exc:
        raise ConfigurationError(
            f"{model!r} needs a price such as {{'input': 0.15, 'output': 0.6}} (US dollars per million tokens): {exc}"
        ) from None
