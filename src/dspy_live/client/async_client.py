"""The asynchronous client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_live.client.http import Endpoint, config_header, prefix, programs_of
from dspy_live.client.reply import Reply, reply_of_body
from dspy_live.client.run import RemoteRun
from dspy_live.client.service import RemoteService
from dspy_live.client.socket import AsyncSocket
from dspy_live.client.stream import ResumableRun, ResumableSource, StreamSource
from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import LiveError

Config = Mapping[str, Any] | None


class AsyncClient:
    """A client of one dspy-live server. It keeps connections per event loop; there is nothing to close.

    Inputs are keyword arguments; those whose names are taken here (``config``, ``program``, …) go in
    the mapping that every method takes first.

    Args:
        url: the server's, with the path that it is mounted under.
        api_key: if it asks for one.
        program: the program to use by default; the server's own default when ``None``.
        connect: seconds until a connection must stand.
        idle: the longest silence within a stream, in seconds, heartbeats included; ``None`` for ever.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for what is no URL.
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
        self.endpoint = Endpoint(url, api_key, connect, idle)
        self._program = program

    async def predict(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        config: Config = None,
        program: str | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Reply:
        """Run a program and return its outputs.

        Args:
            inputs: the inputs by name; ``fields`` are added to them.
            config: LM options for this call alone, such as ``rollout_id``.
            program: by name.
            timeout: seconds for the whole call.

        Raises the server's error as its class (:class:`~dspy_live.core.errors.InputError`, …),
        ``Unreachable`` and ``ConnectionLost`` for the connection, ``DeadlineExceeded`` for ``timeout``.
        Cancelling it closes the connection, which cancels the run.
        """
        path = f"{self._prefix(program)}/predict"
        body, headers = await self.endpoint.ask(
            "POST", path, {**(inputs or {}), **fields}, config_header(config), timeout
        )
        return reply_of_body(body, headers.get("x-run-id", ""), headers.get("server-timing", ""))

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
    ) -> RemoteRun:
        """Return a run to enter and iterate over. Leaving it early cancels it.

        ``buffer`` bounds the events that wait here; when it is full the server is not read, and then
        the LM is not read either. The other arguments are those of :meth:`predict`.
        """
        source = StreamSource(self.endpoint, self._prefix(program))
        return RemoteRun(source, _call(inputs, fields, config), buffer, timeout)

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
    ) -> ResumableRun:
        """Return a run that survives a lost connection: it goes on where it was, without a gap.

        As :meth:`stream` otherwise; ``run.detach()`` leaves it to be resumed later.
        """
        source = ResumableSource(self.endpoint, self._prefix(program))
        return ResumableRun(source, _call(inputs, fields, config), buffer, timeout)

    def resume(
        self, run_id: str, after: int = 0, *, timeout: float | None = None, buffer: Buffer | None = None
    ) -> ResumableRun:
        """Return a run that was started before, from the event after number ``after`` on.

        Iterating raises ``NotFound`` for a run that the server does not have, ``RemoteError`` of type
        ``gone`` when it no longer has those events; a run that is over and was read to its end has none.
        """
        source = ResumableSource(self.endpoint, run_id=run_id, after=after)
        return ResumableRun(source, Call(), buffer, timeout, after)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run, however it was started. Raises ``NotFound`` for one that is not under way."""
        await self.endpoint.ask("DELETE", f"/runs/{run_id}")

    def socket(self, *, program: str | None = None) -> AsyncSocket:
        """Return a WebSocket to enter, for many runs on one connection."""
        return AsyncSocket(self.endpoint, self._prefix(program))

    def service(self, *, program: str | None = None) -> RemoteService:
        """Return a program of the server as a Service, for layers."""
        return RemoteService(self.endpoint, program=program or self._program)

    async def programs(self) -> list[dict[str, Any]]:
        """Return the server's programs: name, description, inputs and outputs of each."""
        body, _ = await self.endpoint.ask("GET", "/programs")
        return programs_of(body, self.endpoint.url)

    async def ready(self) -> bool:
        """Return whether the server takes runs now; false too when it can't be reached."""
        try:
            body, _ = await self.endpoint.ask("GET", "/health/ready", timeout=5.0)
        except LiveError:
            return False
        return bool(body["status"] == "ready")

    def _prefix(self, program: str | None) -> str:
        return prefix(program or self._program)


def _call(inputs: Mapping[str, Any] | None, fields: Mapping[str, Any], config: Config) -> Call:
    return Call({**(inputs or {}), **fields}, config=config or {})
