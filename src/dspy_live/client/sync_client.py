"""The synchronous client: the asynchronous one, on the process's own I/O loop."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar

from dspy_live.client.async_client import AsyncClient, Config
from dspy_live.client.reply import Reply
from dspy_live.client.run import RemoteRun
from dspy_live.client.socket import AsyncSocket
from dspy_live.client.stream import ResumableRun
from dspy_live.core.call import Buffer
from dspy_live.core.events import Event, Token
from dspy_live.runtime.execution import background

T = TypeVar("T")


class Client:
    """As :class:`~dspy_live.client.AsyncClient`, for code without an event loop; any thread may use it.

    It waits on the process's background loop; on an event loop's own thread use the asynchronous one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        program: str | None = None,
        connect: float | None = 10.0,
        idle: float | None = 60.0,
    ) -> None:
        self._client = AsyncClient(url, api_key=api_key, program=program, connect=connect, idle=idle)

    def predict(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        config: Config = None,
        program: str | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Reply:
        """Run a program and return its outputs; an interrupt (Ctrl-C) cancels the run."""
        inputs = {**(inputs or {}), **fields}
        return _wait(self._client.predict(inputs, config=config, program=program, timeout=timeout))

    def stream(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        config: Config = None,
        program: str | None = None,
        timeout: float | None = None,
        buffer: Buffer | None = None,
        **fields: Any,
    ) -> SyncRun:
        """Return a run to enter and iterate over. Leaving it early cancels it."""
        inputs = {**(inputs or {}), **fields}
        return SyncRun(self._client.stream(inputs, config=config, program=program, timeout=timeout, buffer=buffer))

    def start(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        config: Config = None,
        program: str | None = None,
        timeout: float | None = None,
        buffer: Buffer | None = None,
        **fields: Any,
    ) -> SyncRun:
        """Return a run that survives a lost connection."""
        inputs = {**(inputs or {}), **fields}
        return SyncRun(self._client.start(inputs, config=config, program=program, timeout=timeout, buffer=buffer))

    def resume(
        self, run_id: str, after: int = 0, *, timeout: float | None = None, buffer: Buffer | None = None
    ) -> SyncRun:
        """Return a run that was started before, from the event after number ``after`` on."""
        return SyncRun(self._client.resume(run_id, after, timeout=timeout, buffer=buffer))

    def cancel(self, run_id: str) -> None:
        """Cancel a run, however it was started."""
        _wait(self._client.cancel(run_id))

    def socket(self, *, program: str | None = None) -> SyncSocket:
        """Return a WebSocket to enter, for many runs on one connection."""
        return SyncSocket(self._client.socket(program=program))

    def programs(self) -> list[dict[str, Any]]:
        """Return the server's programs."""
        return _wait(self._client.programs())

    def ready(self) -> bool:
        """Return whether the server takes runs now."""
        return _wait(self._client.ready())


class SyncRun:
    """One run; ``with`` it and iterate over its events. Leaving the block before the end cancels it."""

    def __init__(self, run: RemoteRun) -> None:
        self._run = run
        self._ready: list[Event] = []

    @property
    def id(self) -> str:
        """The run's id on the server, empty before it is known."""
        return self._run.id

    @property
    def reply(self) -> Reply | None:
        """The outputs, usage and duration, once the prediction has come."""
        return self._run.reply

    @property
    def position(self) -> int:
        """The number of the last event that was taken: what to resume after."""
        if not isinstance(self._run, ResumableRun):
            raise TypeError("only a run of start() or resume() has a position to resume after")
        return self._run.position - len(self._ready)

    def detach(self) -> tuple[str, int]:
        """Let the run go on without a reader, for the server's grace; returns what ``resume`` takes."""
        position = self.position
        assert isinstance(self._run, ResumableRun)
        return self._run.detach()[0], position

    def __enter__(self) -> SyncRun:
        _enter(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _exit(self._run)

    def __iter__(self) -> Iterator[Event]:
        while self._ready or self._receive():
            yield self._ready.pop(0)

    def text(self, field: str | None = None) -> Iterator[str]:
        """Iterate over the text of one field as it arrives, by default of every field."""
        for event in self:
            if isinstance(event, Token) and event.text and (field is None or event.field == field):
                yield event.text

    def result(self) -> Reply:
        """Take what is left and return the reply. Raises the run's failure."""
        self._ready.clear()
        return _wait(self._run.result())

    def _receive(self) -> bool:
        self._ready = _wait(self._run.receive_many())
        return bool(self._ready)


class SyncSocket:
    """One WebSocket connection; enter it, then :meth:`start` runs on it."""

    def __init__(self, socket: AsyncSocket) -> None:
        self._socket = socket

    def __enter__(self) -> SyncSocket:
        _enter(self._socket)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _exit(self._socket)

    def start(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        config: Config = None,
        program: str | None = None,
        buffer: Buffer | None = None,
        **fields: Any,
    ) -> SyncRun:
        """Return a run to enter; leaving it early cancels it, and only it."""
        inputs = {**(inputs or {}), **fields}
        return SyncRun(self._socket.start(inputs, config=config, program=program, buffer=buffer))


def _wait(work: Coroutine[Any, Any, T]) -> T:
    future = background.io.submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _enter(inside: AbstractAsyncContextManager[Any]) -> None:
    async def enter() -> None:
        await inside.__aenter__()

    _wait(enter())


def _exit(inside: AbstractAsyncContextManager[Any]) -> None:
    async def leave() -> None:
        await inside.__aexit__(None, None, None)

    _wait(leave())
