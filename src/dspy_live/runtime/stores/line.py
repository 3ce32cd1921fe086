"""A thread with one connection to a Redis or Valkey server, over which shared limits exchange what they know."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import logging
import threading
import time
import weakref
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.forks import at_fork, process_lock
from dspy_live.runtime.stores.address import connected

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger("dspy_live.shared")

T = TypeVar("T")

BEAT = 2.0
"""Seconds between two signs of life of a process that has something in flight."""
LEASE = 15.0
"""Seconds without a sign of life after which what a process has in flight counts no more."""
SETTLE = 3.0
"""Seconds for which a server that came back empty grants nothing: more than a beat, so that all have told it what they
have in flight."""
TELL = 0.05
"""Seconds that what was used may wait for company before it is told."""
REST = 1.0
"""Seconds for which a server that did not answer is left alone."""
PING = 5.0
"""Seconds of silence after which a connection that only listens is tried."""
_IDLE = 1.0
_inherited: list[Any] = []


COMMON = """
local function text(number) return string.format('%.17g', number) end
local function numbers(value)
  local found = {}
  for number in string.gmatch(value, '%S+') do found[#found + 1] = tonumber(number) end
  return found
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
"""


class Script:
    """A Lua script, of one key. :data:`COMMON` comes before it."""

    def __init__(self, text: str) -> None:
        self.text = text = COMMON + text
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # the name that Redis gives it


class Exchange(NamedTuple):
    """One run of a script: what a party tells and asks."""

    script: Script
    key: str
    args: list[Any]


class Party(Protocol):
    """One that exchanges figures with the server; all three methods are called by the line's thread, in this order.

    What it tells is its whole state, not a change of it, so that an answer that was lost does no harm.
    """

    def prepare(self, holder: str) -> Exchange | None:
        """Return what is to be told and asked now, ``None`` when there is nothing; ``holder`` names this process."""
        ...

    def answered(self, answer: list[Any]) -> None:
        """Take the script's answer."""
        ...

    def failed(self, error: Exception) -> None:
        """The server did not answer; it may have heard all the same."""
        ...


class Line:
    """Exchanges the figures of all parties that are due, as one message; a party has one exchange under way at most.

    Whoever asks waits for an :class:`Ask`, on any loop or thread. The thread ends when nothing is due for a while, and
    begins again when something is.

    Args:
        url: ``redis://[user:password@]host:port/db``, ``rediss://…`` for TLS, ``unix://…``.
        timeout: seconds to wait for the server, to connect and to answer.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``redis`` extra, or for a wrong URL.
    """

    def __init__(self, url: str, timeout: float = 1.0) -> None:
        if not timeout > 0:
            raise ConfigurationError(f"timeout must be seconds above 0; got {timeout!r}")
        self.timeout = timeout
        self._url = url
        self._client: Redis = _connect(url, timeout)
        self._begin()
        at_fork(in_child=self._forked)
        atexit.register(_farewell, weakref.ref(self))

    def _begin(self) -> None:
        self.holder = uuid4().hex
        self._due: dict[Party, float] = {}
        self._changed = threading.Condition()
        self._alone = threading.Lock()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        self._rest_until = 0.0

    @property
    def database(self) -> int:
        """The number of the server's database that the address names."""
        return int(self._client.connection_pool.connection_kwargs.get("db") or 0)

    def soon(self, party: Party, seconds: float = 0.0) -> None:
        """Let ``party`` exchange its figures in so many seconds, or earlier."""
        when = time.monotonic() + seconds
        with self._changed:
            if when >= self._due.get(party, float("inf")):
                return
            self._due[party] = when
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="dspy-live-shared", daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def stuck(self) -> bool:
        """True when the exchange under way takes longer than it may: a name that nobody resolves, for instance."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > 2 * self.timeout

    def exchange(self) -> None:
        """Let all parties that are due exchange their figures now, in this thread."""
        self._exchange(self._take(float("inf")))

    def connect(self) -> Redis:
        """Return a client of its own to the same server, which finds out when its connection has died."""
        return _connect(self._url, self.timeout, health_check_interval=PING)

    def run(self, commands: list[list[Any]]) -> list[Any]:
        """Run these commands of the server's, all or none, and wait; raises ``OSError`` when it does not answer."""
        from redis.exceptions import RedisError

        pipe = self._client.pipeline(transaction=True)
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        try:
            return pipe.execute()
        except RedisError as exc:
            raise OSError(f"the server of what is shared does not answer: {exc}") from exc

    def _work(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                next_due = max(min(self._due.values(), default=float("inf")), self._rest_until)
                if next_due > now:
                    self._changed.wait(min(next_due - now, _IDLE))
                    if not self._due:
                        self._thread = None
                        return
                    continue
            self._exchange(self._take(now))

    def _take(self, now: float) -> list[Party]:
        with self._changed:
            due = [party for party, when in self._due.items() if when <= now]
            for party in due:
                del self._due[party]
        return due

    def _exchange(self, parties: list[Party]) -> None:
        with self._alone:  # at the process's end two threads are here
            self._exchange_alone(parties)

    def _exchange_alone(self, parties: list[Party]) -> None:
        asked = [(party, exchange) for party in parties if (exchange := self._prepared(party)) is not None]
        if not asked:
            return
        self._busy_since = time.monotonic()
        try:
            answers = self._execute([exchange for _, exchange in asked])
        except Exception as exc:
            self._rest_until = time.monotonic() + REST
            answers = [exc] * len(asked)
        finally:
            self._busy_since = None
        for (party, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Exception):
                party.failed(answer)
            else:
                party.answered(answer)

    def _prepared(self, party: Party) -> Exchange | None:
        try:
            return party.prepare(self.holder)
        except Exception:  # a fault of one must not end the thread of all
            log.exception("%r could not tell what it shares", party)
            return None

    def _execute(self, exchanges: list[Exchange]) -> list[Any]:
        from redis.exceptions import NoScriptError

        answers = self._evaluate(exchanges, known=True)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = self._evaluate([exchanges[n] for n in unknown], known=False)
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        return answers

    def _evaluate(self, exchanges: list[Exchange], known: bool) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for script, key, args in exchanges:
            if known:
                pipe.evalsha(script.sha, 1, key, *args)
            else:
                pipe.eval(script.text, 1, key, *args)
        return pipe.execute(raise_on_error=False)

    def _forked(self) -> None:
        # The thread and what is in flight are the parent's. Its connection is not closed: the farewell would be heard.
        _inherited.append(self._client)
        self._client = _connect(self._url, self.timeout)
        self._begin()


class Ask(Generic[T]):
    """A question that the line's thread answers, for one who waits on a loop or in a thread."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: Future[T] = Future()

    def answer(self, value: T) -> bool:
        """Give the answer. False when nobody waits for it any more: what it gives is to be taken back."""
        try:
            self._future.set_result(value)
        except InvalidStateError:
            return False
        return True

    @property
    def open(self) -> bool:
        """True while there is no answer and somebody waits for it."""
        return not self._future.done()

    def withdraw(self) -> T | None:
        """Stop waiting; return the answer where it has come already."""
        return None if self._future.cancel() else self._future.result()

    async def wait(self, line: Line, seconds: float | None = None) -> T | None:
        """Wait for the answer, ``None`` when the line is stuck or ``seconds`` are over. Cancelled: ``withdraw()``."""
        end = None if seconds is None else time.monotonic() + seconds
        waiter = asyncio.wrap_future(self._future)
        while not self._future.done():
            left = line.timeout if end is None else min(line.timeout, end - time.monotonic())
            await asyncio.wait({waiter}, timeout=max(0.0, left))
            if not self._future.done() and (line.stuck() or (end is not None and time.monotonic() >= end)):
                return self.withdraw()
        return self._future.result()

    def wait_in_thread(self, line: Line) -> T | None:
        """Wait for the answer in a thread of one's own; ``None`` when the line is stuck."""
        while True:
            try:
                return self._future.result(line.timeout)
            except TimeoutError:
                if line.stuck():
                    return self.withdraw()


_lines: weakref.WeakValueDictionary[tuple[str, float], Line] = weakref.WeakValueDictionary()
_lines_lock = process_lock()


def line_to(url: str, timeout: float = 1.0) -> Line:
    """Return this process's line to a server, the same one for all that name it alike."""
    with _lines_lock:
        line = _lines.get((url, timeout))
        if line is None:
            line = _lines[url, timeout] = Line(url, timeout)
        return line


def _farewell(line_of: weakref.ref[Line]) -> None:
    line = line_of()
    if line is not None and line._due and time.monotonic() >= line._rest_until:
        line.exchange()


def _connect(url: str, timeout: float, **options: Any) -> Redis:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as Disconnected
        from redis.retry import Retry
    except ImportError:
        raise ConfigurationError(
            "what processes share is kept in Redis or Valkey, by the extra 'redis': pip install 'dspy-live[redis]'"
        ) from None
    # An exchange may be repeated, and a connection that has gone bad is found out by using it.
    retry = Retry(NoBackoff(), 1, supported_errors=(Disconnected,))
    return connected(
        Redis.from_url, url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry, **options
    )
