"""Shared by the simulated LM's server and its in-process form: seeds, options, numbering, varied answers."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from hashlib import blake2b
from random import Random
from typing import Any

import orjson

from dspy_live.simulator.completion import Completion
from dspy_live.simulator.faults import FaultName, Faults
from dspy_live.simulator.options import Options, asked_for
from dspy_live.simulator.prompt import recognise

_REMEMBERED = 4096
"""Requests whose repeats are told apart when they are sampled with a temperature."""


class Brain:
    """Turns requests into completions.

    The same request gets the same answer, unless it asks to be sampled (``temperature`` over 0 and no
    ``seed``): then its repeats are numbered and answered differently, the n-th always in the same way.

    Args:
        seed: another seed gives other answers, jitter and faults.
        options: the defaults of every reply.
        faults: what goes wrong, unless a request asks for a fault of its own.
    """

    def __init__(self, seed: int = 0, options: Options | None = None, faults: Faults | None = None) -> None:
        self.seed = seed
        self.options = options or Options()
        self.next_options: deque[dict[str, Any]] = deque()
        """Options for the next requests, one each, in order of arrival."""
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._number = 0
        self.set_faults(faults or Faults())

    def set_faults(self, faults: Faults) -> None:
        """Change the faults; the schedule begins with the next request."""
        self.faults = faults
        self._fault_number = 0

    def options_for(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Options:
        """The options of one request; counts it. Raises ``ValueError`` where it asks for what there is not."""
        queued = self.next_options.popleft() if self.next_options else {}
        options = self.options.but(queued | asked_for(headers, body))
        number, self._fault_number = self._fault_number, self._fault_number + 1
        if options.fault is None and options.text is None:
            fault = self.faults.draw(number, Random(f"{self.seed}/fault/{number}"))
            options = options.but({"fault": fault})
        if options.only is not None and options.fault is not None and recognise(body).format != options.only:
            options = options.but({"fault": None})
        return options

    def complete(self, body: Mapping[str, Any], options: Options) -> Completion:
        """The completion that answers ``body``. Raises ``ValueError`` or ``TypeError`` for a malformed request."""
        self._number += 1
        ident = f"chatcmpl-sim{self.seed}-{self._number}"
        return Completion(
            body,
            options,
            ident=ident,
            created=int(time.time()),
            seed=self.seed,
            variation=self._variation(body),
        )

    def rng(self) -> Random:
        """A source of jitter for the request that was numbered last."""
        return Random(f"{self.seed}/pace/{self._number}")

    def _variation(self, body: Mapping[str, Any]) -> int:
        if not body.get("temperature") or body.get("seed") is not None:
            return 0
        data = orjson.dumps([body.get("model"), body.get("messages")], default=str, option=orjson.OPT_NON_STR_KEYS)
        key = blake2b(data, digest_size=12).digest()
        number = self._seen.pop(key, -1) + 1
        self._seen[key] = number
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return number


REFUSALS: dict[FaultName, tuple[int, str, str, str, str | None]] = {
    "400": (400, "Bad Request", "The request is not valid.", "invalid_request_error", None),
    "401": (401, "Unauthorized", "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    "429": (429, "Too Many Requests", "Rate limit reached.", "requests", "rate_limit_exceeded"),
    "500": (500, "Internal Server Error", "The server had an error.", "server_error", None),
    "503": (503, "Service Unavailable", "The model is overloaded.", "server_error", "overloaded"),
    "context": (
        400,
        "Bad Request",
        "This model's maximum context length is 8192 tokens.",
        "invalid_request_error",
        "context_length_exceeded",
    ),
    "no_stream_options": (
        400,
        "Bad Request",
        "Unrecognized request argument supplied: stream_options",
        "invalid_request_error",
        "unknown_parameter",
    ),
}
"""Status, reason, message, type and code of the faults that are a refusal."""
HTML_PAGE = b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>502</h1></body></html>"
