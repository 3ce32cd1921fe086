"""The hot path: events to the bytes of a wire that carries all of them (SSE and the typed WebSocket).

A token costs one dictionary lookup, one JSON string and one join: everything in it that does not
change from token to token is made once per (field, predictor, LM call).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orjson import dumps as to_json

from dspy_live.core.errors import LiveError
from dspy_live.core.events import Event, Predicted, Token, Usage
from dspy_live.core.outlet import Borrower, Outlet
from dspy_live.core.sink import Pen
from dspy_live.server.encoders.frame_loan import FrameLoan
from dspy_live.server.encoders.json import dumps, text
from dspy_live.server.encoders.payload import payload
from dspy_live.server.errors import error_object
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.transport.exchange import Exchange


class Encoder:
    """Encodes one run's events, numbering them from 1.

    A frame is ``before % name``, the event's number, ``middle``, the data as JSON, ``after``.
    """

    __slots__ = ("_after", "_before", "_done", "_middle", "_tokens", "borrower", "run_id", "seq", "totals")

    def __init__(
        self, run_id: str, totals: RunTotals, before: bytes, middle: bytes, after: bytes, done: bytes = b"null"
    ) -> None:
        self.run_id = run_id
        self.totals = totals
        self.seq = 0
        self.borrower: Borrower | None = None
        """Who writes frames to the wire in its place, for now."""
        self._done = done
        self._before = before
        self._middle = middle
        self._after = after
        self._tokens: dict[tuple[str, str, int], tuple[bytes, bytes, bytes]] = {}

    def encode(self, event: Event) -> bytes:
        """Return the frame of one event, and count what it brings."""
        if self.borrower is not None:
            self.borrower.take_back()
        if type(event) is Token:
            seq = self.seq = self.seq + 1
            self.totals.tokens += 1
            key = (event.field, event.predictor, event.lm_call)
            before, middle, after = self._tokens.get(key) or self._token_parts(key)
            try:
                said = to_json(event.text)
            except TypeError:  # half of a surrogate pair
                said = text(event.text)
            if event.last:
                return b'%b%d%b%b,"last":true%b' % (before, seq, middle, said, after)
            return b"%b%d%b%b%b" % (before, seq, middle, said, after)
        if type(event) is Usage:
            self.totals.add(event)
        name, data = payload(event)
        return self._frame(name, dumps(data))

    def pen(self, token: Token, write: Callable[[bytes], bool]) -> Pen:
        """Return a pen for the further text of the field of ``token``, which was encoded. Frames go to ``write``."""
        key = (token.field, token.predictor, token.lm_call)
        before, middle, after = (part.replace(b"%", b"%%") for part in self._tokens.get(key) or self._token_parts(key))
        frame = before + b"%d" + middle + b"%b" + after
        self._tokens.clear()  # they were made for this; the stream may last for hours

        def write_text(words: str) -> bool:
            try:
                said = to_json(words)
            except TypeError:  # half of a surrogate pair
                said = text(words)
            if self.borrower is not None:
                self.borrower.take_back()
            seq = self.seq = self.seq + 1
            self.totals.tokens += 1
            return write(frame % (seq, said))

        return write_text

    def outlet(self, token: Token, exchange: Exchange) -> Outlet:
        """Return the outlet of the field of ``token``, which was encoded; ``exchange`` is what the frames go to."""
        key = (token.field, token.predictor, token.lm_call)
        loan = FrameLoan(self, exchange, *(self._tokens.get(key) or self._token_parts(key)))
        self._tokens.clear()  # the loan has them
        return Outlet(loan)

    def prediction(self, result: Predicted) -> bytes:
        """Return the ``prediction`` frame of a run's result."""
        totals = self.totals
        run = {"duration_ms": totals.duration_ms, "run": totals.run(self.run_id)}
        return self._frame("prediction", dumps({"outputs": result.outputs} | run))

    def error(self, error: LiveError) -> bytes:
        """Return the ``error`` frame of a public error."""
        return self._frame("error", dumps(error_object(error, self.run_id)))

    def end(self) -> bytes:
        """Return the ``done`` frame, the last one."""
        return self._frame("done", self._done)

    def _frame(self, name: str, data: bytes) -> bytes:
        if self.borrower is not None:
            self.borrower.take_back()
        self.seq += 1
        return b"%b%d%b%b%b" % (self._before % name.encode(), self.seq, self._middle, data, self._after)

    def _token_parts(self, key: tuple[str, str, int]) -> tuple[bytes, bytes, bytes]:
        self.totals.first_token()
        field, predictor, lm_call = key
        parts = (
            self._before % b"token",
            self._middle + b'{"field":%b,"text":' % text(field),
            b',"predictor":%b,"lm_call":%d}' % (text(predictor), lm_call) + self._after,
        )
        self._tokens[key] = parts
        return parts


def sse(run_id: str, totals: RunTotals) -> Encoder:
    """Return the encoder of a server-sent event stream; ids are ``RUN:SEQ``."""
    return Encoder(run_id, totals, b"event: %b\nid: " + run_id.encode() + b":", b"\ndata: ", b"\n\n", b"[DONE]")


def frames(client_id: Any, run_id: str, totals: RunTotals) -> Encoder:
    """Return the encoder of the typed WebSocket; ``client_id`` is the client's own name of the run."""
    before = b'{"id":' + dumps(client_id).replace(b"%", b"%%") + b',"event":"%b","seq":'
    return Encoder(run_id, totals, before, b',"data":', b"}")
