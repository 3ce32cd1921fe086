"""What one exchange with an LM used, and who has to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

CacheUse = Literal["hit", "miss", "off"]


class LMUsage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one exchange, as the provider reported them.

    ``prompt_tokens`` counts the whole prompt: ``cached_tokens`` (read from the provider's prompt cache) and
    ``cache_write_tokens`` (written to it) are parts of it. ``reasoning_tokens`` is a part of
    ``completion_tokens``, ``audio_tokens`` of both. ``estimated`` is true when the provider reported nothing and
    the counts are a guess.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    audio_tokens: int = 0

    @classmethod
    def parse(cls, raw: object) -> LMUsage | None:
        """Read the ``usage`` of an OpenAI-style reply: a mapping, or an object with the same attributes.

        Returns ``None`` when neither the prompt nor the completion is counted. A count that is not a whole number
        of at least 0 is taken as not reported; a part is never larger than its whole. A missing total is the sum.
        Providers that count a part beside its whole are set right: the prompt cache beside ``input_tokens``
        (``cache_read_input_tokens``; beside ``prompt_tokens`` where the total says so, or where it is more than those),
        and reasoning beside the completion. What only the total knows of is reasoning, as Gemini's is.
        """
        if type(raw) is dict and len(raw) == 3:  # the usual reply, in a tenth of the time
            usual: list[Any] = list(map(raw.get, _USUAL))
            if _ONLY_INT.issuperset(map(type, usual)) and min(usual) >= 0 and usual[0] + usual[1] == usual[2]:
                return cls(*usual)
        prompt = _count(raw, "prompt_tokens")
        anthropic = _first(raw, "cache_read_input_tokens", "cache_creation_input_tokens") is not None
        beside = prompt is None and anthropic
        if prompt is None:
            prompt = _count(raw, "input_tokens")
        completion = _count(raw, "completion_tokens", "output_tokens")
        if prompt is None and completion is None:
            return None
        total = _count(raw, "total_tokens")
        if prompt is None:
            prompt = max(0, (total or 0) - (completion or 0))
        completion = completion or 0
        given = _first(raw, "prompt_tokens_details", "input_tokens_details")
        made = _first(raw, "completion_tokens_details", "output_tokens_details")
        cached = _either(given, ("cached_tokens",), raw, _READ)
        written = _either(given, ("cache_creation_tokens", "cache_write_tokens"), raw, _WRITTEN)
        reasoning = _either(made, ("reasoning_tokens",), raw, ("reasoning_tokens",))
        if anthropic and not beside:
            beside = cached + written > prompt or (
                cached + written > 0 and total == prompt + completion + cached + written
            )
        if beside:
            prompt, total = prompt + cached + written, None
        if total is None:
            total = prompt + completion
        elif (untold := total - prompt - completion) > 0:
            completion, reasoning = completion + untold, reasoning or untold
        cached = min(cached, prompt)
        return cls(
            prompt,
            completion,
            total,
            cached,
            min(written, prompt - cached),
            min(reasoning, completion),
            False,
            (_count(given, "audio_tokens") or 0) + (_count(made, "audio_tokens") or 0),
        )

    @classmethod
    def estimate(cls, prompt_characters: int, completion_characters: int) -> LMUsage:
        """Guess the counts from lengths of text, at four characters a token, rounded up; marked as estimated."""
        prompt, completion = -(-prompt_characters // 4), -(-completion_characters // 4)
        return cls(prompt, completion, prompt + completion, estimated=True)

    def __add__(self, other: LMUsage) -> LMUsage:
        """Return the sum of two counts; it is estimated when a part of it is."""
        return LMUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
            self.audio_tokens + other.audio_tokens,
        )

    def __bool__(self) -> bool:
        """True when anything was used."""
        return bool(self.total_tokens or self.prompt_tokens or self.completion_tokens)


NOTHING = LMUsage()

_ONLY_INT = frozenset({int})
_USUAL = ("prompt_tokens", "completion_tokens", "total_tokens")
_READ = ("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens")
_WRITTEN = ("cache_creation_input_tokens", "cache_write_tokens")


class LMRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One exchange with an LM, or one answer from the cache, for the books.

    One record per request that was sent: a retry is a record of its own, and so is the try that failed.

    Args:
        model: as the LM names it (``"openai/gpt-4o-mini"``).
        run: the run's id, empty outside of any run.
        program: the run's program, by name.
        predictor: the predictor's path in the program (``"rag.answer"``).
        modules: the paths of the modules around the predictor, outermost first; each has its share.
        lm_call: the number of the LM call within the run, counted from 1.
        usage: zero for an answer from the cache and for a request that failed before it was served.
        cost: US dollars; ``None`` when unknown.
        cache: ``"hit"``, ``"miss"`` (looked up, not there) or ``"off"`` (not looked up; so is a retry).
        error: the class name of the failure, or ``None``.
        latency: seconds from the request to the end of the reply.
        ttft: seconds to the first piece of the reply, ``None`` when there was none.
        key: the id of the API key that the run belongs to; never the key itself.
        response_model: the model that the reply names, empty where it names none.
        finish_reasons: why each completion of the reply ended, in the provider's words.
        server: host and port that were asked, as ``"api.openai.com:443"``; empty where they are not known.
        streamed: true when the reply was asked for piece by piece.
    """

    model: str
    run: str = ""
    program: str = ""
    predictor: str = ""
    modules: tuple[str, ...] = ()
    lm_call: int = 0
    usage: LMUsage = NOTHING
    cost: float | None = None
    cache: CacheUse = "off"
    error: str | None = None
    latency: float = 0.0
    ttft: float | None = None
    key: str = ""
    response_model: str = ""
    finish_reasons: tuple[str, ...] = ()
    server: str = ""
    streamed: bool = False


class Expected(msgspec.Struct, frozen=True, gc=False):
    """What one LM call will probably use: ``usage`` is an estimate, ``cost`` its price in US dollars.

    ``model`` is empty where nobody knows yet which LM is asked; ``cost`` is ``None`` where the price is unknown.
    """

    model: str = ""
    usage: LMUsage = NOTHING
    cost: float | None = None


class Meter(Protocol):
    """Something that counts what LM calls use, and may refuse the next one. Called from any thread; must be quick."""

    def check(self) -> None:
        """Called before an LM call is sent. Raises :class:`~dspy_live.core.errors.BudgetExceeded` to refuse it."""
        ...

    def record(self, record: LMRecord) -> None:
        """Count one exchange. Must not raise."""
        ...


class Reservation(Meter, Protocol):
    """The place that a meter keeps for one LM call. The first :meth:`record` settles it."""

    def release(self) -> None:
        """Give the place up without anything to count. Does nothing when it is settled. Must not raise."""
        ...


class ReservingMeter(Meter, Protocol):
    """A meter that counts a call from the moment when it is let through, by an estimate at first."""

    def reserve(self, expected: Expected) -> Reservation:
        """Take the place of ``check``: keep room for one LM call.

        Raises :class:`~dspy_live.core.errors.BudgetExceeded` where there is none.
        """
        ...


class WaitingMeter(ReservingMeter, Protocol):
    """A reserving meter that asks a server: where the caller can wait, it is asked by awaiting."""

    async def reserve_async(self, expected: Expected) -> Reservation:
        """As ``reserve``. Cancelled meanwhile, nothing is reserved."""
        ...


def _first(source: object, *names: str) -> Any:
    # dict first: asking an abstract class costs a microsecond, and this runs on every reply.
    named = isinstance(source, dict) or isinstance(source, Mapping)  # noqa: SIM101
    for name in names:
        value = source.get(name) if named else getattr(source, name, None)  # type: ignore[attr-defined]
        if value is not None:
            return value
    return None


def _either(part: object, names: tuple[str, ...], whole: object, other: tuple[str, ...]) -> int:
    value = _count(part, *names)
    return value if value is not None else _count(whole, *other) or 0


def _count(source: object, *names: str) -> int | None:
    if source is None:
        return None
    value = _first(source, *names)
    if type(value) is int:
        return value if value >= 0 else None
    if isinstance(value, float) and value >= 0 and value.is_integer():
        return int(value)
    return None
