"""The tools' calls that are under way, so that a client of 2025 can cancel one by a message of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dspy_live.core.errors import Cancelled
from dspy_live.server.runs.registry import RegisteredRun

_Place = tuple[str, str, Any]


class McpCalls:
    """The calls of this process, by key, MCP session and request id.

    A call without a session can't be found: its client's request ids are no more unique than anybody's.
    """

    def __init__(self) -> None:
        self._calls: dict[_Place, RegisteredRun] = {}

    def __len__(self) -> int:
        return len(self._calls)

    @contextmanager
    def of(self, key: str, session: str, request_id: Any, run: RegisteredRun) -> Iterator[None]:
        """While inside, the run can be cancelled."""
        place = (key, session, request_id)
        if session:
            self._calls[place] = run
        try:
            yield
        finally:
            if self._calls.get(place) is run:
                del self._calls[place]

    def cancel(self, key: str, session: str, request_id: Any) -> bool:
        """Cancel a call; false where it is not under way in this process."""
        run = self._calls.get((key, session, request_id))
        if run is not None:
            run.stop(Cancelled("the client cancelled the call"))
        return run is not None
