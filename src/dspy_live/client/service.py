"""A remote server as a Service: what wraps a program in the process wraps one elsewhere too."""

from __future__ import annotations

from dspy_live.client.http import Endpoint, prefix
from dspy_live.client.stream import StreamSource
from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.sink import Sink
from dspy_live.layers.deadline import Deadline


class RemoteService:
    """A program of a dspy-live server, as a :class:`~dspy_live.core.service.Service`.

    A call's inputs, config and deadline go along. The deadline ends it here; that, and cancelling it, closes the
    connection, which cancels the run on the server. The run's id is the server's own.

    Args:
        url: the server's, or an :class:`Endpoint`.
        api_key: for a ``url``.
        program: by name; the server's default program when ``None``.
    """

    def __init__(self, url: str | Endpoint, *, api_key: str | None = None, program: str | None = None) -> None:
        self.endpoint = url if isinstance(url, Endpoint) else Endpoint(url, api_key)
        self._prefix = prefix(program)
        self._deadline = Deadline()

    async def __call__(self, call: Call, sink: Sink) -> Result:
        """Run the program on the server."""
        return await self._deadline(StreamSource(self.endpoint, self._prefix))(call, sink)
