"""A reply as a plan: what to write, after which wait, where the fault strikes. Arithmetic: no clock, no socket."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

import orjson

from dspy_live.simulator.completion import DONE, Completion, Frame
from dspy_live.simulator.options import Options

_DRIP = 16
"""Bytes per millisecond of a dripping reply: slow enough that a reader sees most pieces alone."""
_BROKEN = b'data: {"id":"chatcmpl-broken","object":"chat.completion.chunk","choices":[{"index":0,"del\n\n'


class Action(NamedTuple):
    """Wait ``wait`` seconds (``inf``: until the client leaves), then write ``data``; ``None`` cuts the connection."""

    wait: float
    data: bytes | None
    tokens: int = 0


def response(status: int, reason: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP response; JSON unless the headers say otherwise."""
    named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode() + body


def error_body(message: str, kind: str, code: str | None = None) -> bytes:
    """OpenAI's error object."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Plan:
    """The actions of one reply. ``reported`` becomes true once its usage has been written."""

    def __init__(self, completion: Completion, options: Options, rng: Random) -> None:
        self._completion = completion
        self._options = options
        self._rng = rng
        self.reported = False

    def stream(self, *, include_usage: bool) -> Iterator[Action]:
        """The reply as server-sent events in a chunked body."""
        fault = self._options.fault
        actions = self.paced()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
            f"X-Request-Id: {self._completion.ident}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).encode()
        wrap: Callable[[bytes], bytes] = _chunked
        for action in _dripping(actions, wrap, head) if fault == "drip" else _framed(actions, wrap, head):
            yield action
            if action.data is None:
                return
        if include_usage and fault not in ("no_usage", "error_in_stream"):
            yield Action(0.0, _chunked(self._completion.usage_frame().data))
            self.reported = True
        if fault != "no_done":
            yield Action(0.0, _chunked(DONE))
        yield Action(0.0, b"0\r\n\r\n")

    def paced(self) -> Iterator[Action]:
        """The stream's frames with their waits, up to usage and ``[DONE]``.

        The first-token delay comes before the first, then the time that the tokens take.
        """
        options, vary = self._options, self._vary
        wait = vary(options.ttft)
        per_token = 1.0 / options.tps if options.tps else 0.0
        begun = False
        for frame in self._struck(self._completion.frames()):
            if isinstance(frame, Action):
                yield frame
                continue
            if begun and per_token and frame.tokens:
                wait = vary(per_token * frame.tokens)
            begun = begun or frame.tokens > 0
            yield Action(wait, frame.data, frame.tokens)
            wait = 0.0

    def _vary(self, seconds: float) -> float:
        jitter = self._options.jitter
        if not jitter or not seconds:
            return seconds
        return max(0.0, seconds * (1.0 + jitter * (2.0 * self._rng.random() - 1.0)))

    def _struck(self, frames: Iterator[Frame]) -> Iterator[Frame | Action]:
        """The frames with the fault in their middle: after ``after`` tokens, or at the end of a shorter text."""
        fault, sent, struck = self._options.fault, 0, False
        for frame in frames:
            is_role = sent == 0 and frame.tokens == 0 and b'"role"' in frame.data
            if not struck and not is_role and (sent >= self._options.after or frame.tokens == 0):
                struck = True
                yield from self._strike(fault)
                if fault in ("cut", "error_in_stream"):
                    return
            sent += frame.tokens
            yield frame

    def _strike(self, fault: str | None) -> Iterator[Frame | Action]:
        if fault == "cut":
            yield Action(0.0, None)
        elif fault == "stall":
            yield Action(math.inf if self._options.stall is None else self._options.stall, b"")
        elif fault == "malformed":
            yield Frame(_BROKEN, 0)
        elif fault == "error_in_stream":
            yield Frame(b"data: " + error_body("The model crashed while it answered.", "server_error") + b"\n\n", 0)

    def whole(self) -> Iterator[Action]:
        """The reply as one JSON object, after the time that its tokens take."""
        options, fault = self._options, self._options.fault
        made = self._completion.whole()
        tokens = self._completion.completion_tokens
        if fault == "no_usage":
            del made["usage"]
        body = orjson.dumps(made)
        if fault == "malformed":
            body = body[: len(body) // 2]
        elif fault == "error_in_stream":
            body = error_body("The model crashed while it answered.", "server_error")
        data = response(200, "OK", body, {"X-Request-Id": self._completion.ident})
        wait = self._vary(options.ttft) + (self._vary(tokens / options.tps) if options.tps else 0.0)
        half = len(data) - len(body) // 2
        if fault == "cut":
            yield from (Action(wait, data[:half], tokens // 2), Action(0.0, None))
            return
        if fault == "stall":
            pause = math.inf if options.stall is None else options.stall
            yield from (Action(wait, data[:half], tokens // 2), Action(pause, data[half:], tokens - tokens // 2))
        elif fault == "drip":
            yield from _drips(Action(wait, data, tokens))
        else:
            yield Action(wait, data, tokens)
        self.reported = fault not in ("no_usage", "malformed", "error_in_stream")


def _framed(actions: Iterator[Action], wrap: Callable[[bytes], bytes], head: bytes) -> Iterator[Action]:
    """The actions on the wire, with the response's head before the first bytes."""
    for action in actions:
        if action.data:
            yield Action(action.wait, head + wrap(action.data), action.tokens)
            head = b""
        else:
            yield action


def _dripping(actions: Iterator[Action], wrap: Callable[[bytes], bytes], head: bytes) -> Iterator[Action]:
    for action in _framed(actions, wrap, head):
        yield from _drips(action)


def _drips(action: Action) -> Iterator[Action]:
    if not action.data:
        yield action
        return
    wait, tokens = action.wait, action.tokens
    for start in range(0, len(action.data), _DRIP):
        yield Action(wait, action.data[start : start + _DRIP], tokens)
        wait, tokens = 0.001, 0
