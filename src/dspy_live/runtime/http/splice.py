"""Splicing: plain text of a stream goes from the LM's socket to the client's without a step in Python.

It is what proxies call by that name, for a reply that changes its form on the way. The compiled part does it, where it
is installed: it reads the LM's socket while event after event is of one pattern, and hands everything back at the first
byte that is not.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from typing import TYPE_CHECKING, Any

import orjson

from dspy_live.core.outlet import Outlet
from dspy_live.runtime.native import native
from dspy_live.sansio.openai.stream import StreamParser

if TYPE_CHECKING:
    from dspy_live.runtime.http.exchange import Exchange

log = logging.getLogger("dspy_live")

WORTH = 8
"""Events that make a splice worth its beginning and end."""

_MOST_PATIENCE = 64

SHARE = 8
"""One stream may be spliced for so many descriptors that the process may have: it takes two more, which its clients and
LMs must not lack."""


class LoopSplicer:
    """The spliced streams of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, splicer: Any) -> None:
        self._splicer = splicer
        self._loop = loop
        self.add, self.release, self.state = splicer.add, splicer.release, splicer.state
        self.passed = 0
        """Events of LMs that have passed by Python so far."""
        self.most = _most_streams()
        """Streams at once; further ones go through Python."""
        self._warned = False
        # In no context of anybody's: the loop would keep it, and what follows would run in it.
        contextvars.Context().run(loop.add_reader, splicer.fileno(), self._run)

    def __len__(self) -> int:
        return len(self._splicer)

    def _run(self) -> None:
        for splice in self._splicer.run():
            splice.give_back()

    @property
    def full(self) -> bool:
        """True where no further stream may be spliced for now."""
        return len(self._splicer) >= self.most

    def refused(self, exc: OSError) -> None:
        """A stream could not be spliced: say so once."""
        if not self._warned:
            self._warned = True
            log.warning("streams go through Python for now, they can't be spliced: %s", exc)

    def close(self) -> None:
        """Watch the sockets no more."""
        self._loop.remove_reader(self._splicer.fileno())


def _most_streams() -> int:
    import resource  # which Windows does not have

    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if descriptors == resource.RLIM_INFINITY else max(descriptors // SHARE, 1)


def splicer_for_running_loop() -> LoopSplicer | None:
    """Return a splicer; ``None`` where there is no compiled part, or the loop can't watch a descriptor."""
    module = native()
    if module is None:
        return None
    try:
        return LoopSplicer(asyncio.get_running_loop(), module.Splicer())
    except (NotImplementedError, OSError) as exc:
        log.warning("streams are not spliced: %s", exc or type(exc).__name__)
        return None


class Splice:
    """One stream's text on its way past Python; it begins and ends many times in the life of a stream.

    Args:
        splicer: of the running loop.
        exchange: with the LM.
        parser: reads the LM's events while they are not spliced.
        find_outlet: returns where the text goes, ``None`` where Python has to see it.
    """

    __slots__ = ("_exchange", "_find_outlet", "_key", "_outlet", "_parser", "_patience", "_splicer", "_wait")

    def __init__(self, splicer: LoopSplicer, exchange: Exchange, parser: StreamParser, find_outlet: Any) -> None:
        self._splicer = splicer
        self._exchange = exchange
        self._parser = parser
        self._find_outlet = find_outlet
        self._outlet: Outlet | None = None
        self._key: int | None = None
        self._wait = self._patience = 1

    @property
    def wanted(self) -> bool:
        """True once enough pieces have come since the last splice; a stream whose splices are short waits longer."""
        self._wait -= 1
        return self._wait < 0

    def begin(self) -> None:
        """Splice, if all is of the pattern and nothing waits on the way.

        The LM's reply is between two of its chunks.
        """
        if self._key is not None:
            return
        self._wait = self._patience
        if self._splicer.full:
            return
        connection = self._exchange.spliceable()
        pattern = self._parser.pattern()
        outlet = None if connection is None or pattern is None else self._find_outlet()
        if outlet is None:
            return
        assert connection is not None
        assert pattern is not None
        source = connection.descriptor()
        client = None if source is None else outlet.loan.descriptor(self)
        if client is None:
            return
        loan = outlet.loan
        try:
            self._key = self._splicer.add(
                source, client, *pattern, loan.before, loan.middle, loan.after, loan.seq,
                outlet.stop, outlet.lines, outlet.escapes, self,
            )  # fmt: skip
        except OSError as exc:  # no descriptor is left
            self._splicer.refused(exc)
            self._wait = self._patience = _MOST_PATIENCE
            loan.returned(0, 0, b"")
            return
        self._outlet = outlet
        self._exchange.lend(self, self._heard)
        for watch in outlet.watches:
            watch.heard_elsewhere(self._heard)

    def give_back(self) -> None:
        """The compiled part has come to what is not of the pattern: go on with it in Python."""
        unread = self._end()
        if unread is not None:
            self._exchange.read_on(unread)

    def take_back(self) -> None:
        """End it before something else is written to the client; what was read goes on in a turn of its own."""
        unread = self._end()
        if unread is not None:
            context = contextvars.Context()  # not that of whoever wants the client's socket
            asyncio.get_running_loop().call_soon(self._exchange.read_on, unread, context=context)

    def abandon(self) -> None:
        """End it: the LM's connection is not read any more."""
        self._end()

    def sent(self) -> int:
        """Return how many bytes of frames the client was sent."""
        state = self._splicer.state(self._key)
        return 0 if state is None else state[1]

    def _heard(self) -> float:
        state = self._splicer.state(self._key)
        return 0.0 if state is None else state[0]

    def _end(self) -> bytes | None:
        """Tell everyone what has passed; return the bytes that were read and not used. ``None`` where it had ended."""
        key, outlet = self._key, self._outlet
        if key is None or outlet is None:
            return None
        self._key = self._outlet = None
        raw_text, raw_held, events, frames, size, unread, unsent, heard = self._splicer.release(key)
        self._exchange.returned(heard)
        for watch in outlet.watches:
            watch.heard_at(heard)
        self._patience = 1 if events >= WORTH else min(self._patience * 2, _MOST_PATIENCE)
        self._wait = self._patience
        self._splicer.passed += events
        text, held = _unescaped(raw_text), _unescaped(raw_held)
        self._parser.passed(text + held, events)
        if text:
            for passed in outlet.passed:
                passed(text)
        outlet.loan.returned(frames, size, unsent)
        if held:
            outlet.feed(held)
        return bytes(unread)


def _unescaped(raw: bytes) -> str:
    text: str = orjson.loads(b'"%b"' % raw)
    return text
