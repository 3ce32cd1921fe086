"""Which layer belongs outside of which, and why; the pairs whose wrong order would surprise are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.service import Layer

RECOMMENDED = (
    "shed",
    "deadline",
    "detached",
    "single_flight",
    "fallback",
    "retry",
    "breaker",
    "rate",
    "limit",
    "adaptive",
    "timeouts",
)
"""The kinds of layers from the outermost to the innermost. ``adaptive`` takes the place of ``limit``."""


class Rule(NamedTuple):
    """``outer`` must not stand inside of ``inner``; ``why`` tells the effect, with numbers."""

    outer: str
    inner: str
    why: str


RULES = (
    Rule(
        "shed", "limit", "calls would queue before they are refused: a queue of 100 holds 100 calls that shed never saw"
    ),
    Rule(
        "shed",
        "adaptive",
        "calls would queue before they are refused: a queue of 100 holds 100 calls that shed never saw",
    ),
    Rule(
        "shed",
        "detached",
        "each call would get a task of its own before it is refused: 1000 refused calls make 1000 tasks",
    ),
    Rule(
        "deadline",
        "detached",
        "the caller would wait for a thread that blocks: 1 s over a thread that sleeps for 30 s takes 30 s",
    ),
    Rule(
        "detached",
        "limit",
        "a slot would be free while its thread goes on: 10 callers that leave make 20 threads under a limit of 10",
    ),
    Rule(
        "detached",
        "adaptive",
        "a slot would be free while its thread goes on: 10 callers that leave make 20 threads under a limit of 10",
    ),
    Rule(
        "deadline",
        "retry",
        "each try would have the whole time: 3 tries of 30 s may take 90 s and the waits; Timeouts is for one try",
    ),
    Rule("deadline", "limit", "the wait in the queue would not count: 30 s may become 30 s and any time before it"),
    Rule("deadline", "adaptive", "the wait in the queue would not count: 30 s may become 30 s and any time before it"),
    Rule("deadline", "rate", "the wait for its turn would not count: 30 s may become 90 s with max_wait=60"),
    Rule("deadline", "fallback", "each service would have the whole time: 2 services of 30 s may take 60 s"),
    Rule("deadline", "single_flight", "the first caller's deadline would end the run of all that share it"),
    Rule(
        "single_flight",
        "limit",
        "callers that only wait would hold slots: 10 identical calls fill a limit of 10 with one run",
    ),
    Rule(
        "single_flight",
        "adaptive",
        "callers that only wait would hold slots: 10 identical calls fill a limit of 10 with one run",
    ),
    Rule("single_flight", "rate", "calls that make no request would be counted: 10 identical calls spend 10 requests"),
    Rule(
        "single_flight",
        "retry",
        "every caller would retry for itself: 10 identical calls with 3 tries may make 30 runs",
    ),
    Rule("fallback", "retry", "every try would go through all services: 3 tries over 2 services make 6 calls"),
    Rule(
        "retry",
        "breaker",
        "a failed call would count once for all its tries: with 3 tries, 20 failures are 60 failed requests",
    ),
    Rule(
        "retry", "limit", "the slot would be held during the waits: 10 calls that back off for 30 s block a limit of 10"
    ),
    Rule(
        "retry",
        "adaptive",
        "the slot would be held during the waits: 10 calls that back off for 30 s block a limit of 10",
    ),
    Rule("retry", "rate", "retries would not be counted: 60 requests per minute with 3 tries may become 180"),
    Rule("retry", "timeouts", "the first slow try would end the call: a retry could never help"),
    Rule("breaker", "limit", "calls would wait in the queue only to be refused"),
    Rule("breaker", "adaptive", "calls would wait in the queue only to be refused"),
    Rule("breaker", "timeouts", "it would not see that calls time out, and never open for it"),
    Rule("rate", "limit", "the slot would be held while a call waits its turn: 10 of them block a limit of 10"),
    Rule("rate", "adaptive", "the slot would be held while a call waits its turn: 10 of them block a limit of 10"),
    Rule("rate", "timeouts", "the wait for its turn would count as the LM's silence"),
    Rule("limit", "timeouts", "the wait in the queue would count as the LM's silence"),
    Rule("adaptive", "timeouts", "the wait in the queue would count as the LM's silence"),
)

ONCE = {
    "retry": "they multiply: 3 tries inside of 3 tries are 9",
}
"""Kinds that may stand in a list only once, and why."""


def check_order(layers: Sequence[Layer], lm_layers: Sequence[Layer] = ()) -> None:
    """Refuse lists of layers, outermost first, that contain a surprising pair.

    Layers are told by their class attribute ``kind``; functions and layers of other kinds may stand anywhere.

    Args:
        layers: around one service, such as a program.
        lm_layers: around each LM inside of it. They have an order of their own; only layers that multiply are looked
            for across the two.

    Raises:
        ConfigurationError: names the pair, the effect, and the order that works.
    """
    outer, inner = _kinds(layers), _kinds(lm_layers)
    for kind, why in ONCE.items():
        if (count := [*outer, *inner].count(kind)) > 1:
            raise ConfigurationError(f"{kind} stands {count} times among the layers: {why}")
    for kinds in (outer, inner):
        _check_pairs(kinds)


def _check_pairs(kinds: list[str]) -> None:
    for rule in RULES:
        if rule.outer not in kinds or rule.inner not in kinds:
            continue
        # Of several of a kind every one must be right.
        if max(_all(kinds, rule.outer)) > min(_all(kinds, rule.inner)):
            order = " > ".join(kind for kind in RECOMMENDED if kind in kinds)
            raise ConfigurationError(
                f"{rule.outer} must stand before (outside of) {rule.inner}, or else {rule.why}; "
                f"from the outside in: {order}"
            )


def _kinds(layers: Sequence[Layer]) -> list[str]:
    return [str(kind) for kind in (getattr(layer, "kind", None) for layer in layers) if kind is not None]


def _all(kinds: list[str], kind: str) -> list[int]:
    return [number for number, other in enumerate(kinds) if other == kind]
