"""The running call: what the LM engine, the tools and the user's ``emit`` find when they ask where they are.

It travels in ``dspy.settings.context`` under :data:`KEY`, because DSPy copies its settings into the
threads of ``dspy.Parallel``, where a plain context variable would be lost.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from dspy_live.core.call import Call
from dspy_live.core.events import Custom, Event
from dspy_live.core.usage import Meter
from dspy_live.programs.internals import overrides
from dspy_live.runtime.books.account import tell
from dspy_live.runtime.channel.channel import Channel
from dspy_live.runtime.runtime import Runtime
from dspy_live.runtime.scope import Scope
from dspy_live.sansio.lifecycle import Lifecycle

if TYPE_CHECKING:
    from dspy_live.programs.fields.names import Names
    from dspy_live.programs.fields.origin import Invocation

KEY = "dspy_live_run"


class Run:
    """The state of one call to one program. Nothing of it outlives the call."""

    __slots__ = (
        "call",
        "channel",
        "first",
        "formatted",
        "given",
        "invocations",
        "lifecycle",
        "loop",
        "meters",
        "names",
        "numbers",
        "observers",
        "program",
        "raw",
        "runtime",
        "scope",
        "started",
        "status",
        "thinking",
        "tracker",
        "worker",
        "works",
    )

    def __init__(
        self, runtime: Runtime, call: Call, program: str, names: Names, scope: Scope, channel: Channel
    ) -> None:
        self.runtime = runtime
        self.call = call
        self.program = program
        self.names = names
        self.scope = scope
        self.channel = channel
        self.lifecycle = Lifecycle()
        self.observers = runtime.account.observers
        self.meters: tuple[Meter, ...] = call.attributes.get("meters", ())
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.worker: int | None = None
        self.works: set[Future[None]] = set()
        self.raw = bool(call.attributes.get("raw"))
        self.numbers = itertools.count(1)
        self.invocations: dict[int, Invocation] = {}
        self.formatted: dict[int, tuple[Any, Any, Any]] = {}
        self.thinking: dict[int, tuple[Any, str]] = {}
        self.status: Any = None
        self.given: int | None = None
        self.tracker: Any = None
        self.started = time.monotonic()
        self.first: float | None = None

    @property
    def words(self) -> Channel:
        """The channel that takes what is said; its room is what an LM waits for."""
        return self.channel

    @property
    def root(self) -> Run:
        """The run around all others."""
        return self

    def first_token(self) -> None:
        """Note when the first token was on its way; cheap when it already is."""
        if self.first is None:
            self.first = time.monotonic() - self.started
            tell(self.observers, "first_token", self.call)

    def push(self, event: Event) -> None:
        """Send an event to the reader. One that a straggling thread sends after the result is dropped."""
        if not self.channel.closed and self.lifecycle.state != "done":
            self.lifecycle.check(event)
            self.channel.push(event)

    def gives(self, field: str, text: str, lm_call: int) -> bool:
        """True when a door that can't take words back gives out this text.

        The call's attribute ``shown`` names the fields that it gives out, of the LM call that first speaks in one of
        them; without it a door gives out everything.
        """
        shown = self.call.attributes.get("shown")
        if not text or shown is None:
            return bool(text)
        if field not in shown or self.given not in (None, lm_call):
            return False
        self.given = lm_call
        return True

    async def caught_up(self) -> None:
        """Wait, before an LM call is made, while the reader is far behind."""
        words = self.words
        if words.full and asyncio.get_running_loop() is self.loop and not words.broken:
            await words.room()
            self.scope.check()


def current_run() -> Run | None:
    """Return the run that this code is part of, or ``None`` outside of any."""
    run: Run | None = overrides().get(KEY)
    return run


def emit(name: str, data: Any = None) -> bool:
    """Send an event of the program's own to whoever reads this run.

    Args:
        name: what the reader tells such events apart by.
        data: anything that JSON can hold.

    Returns:
        True when the code is part of a run; outside of one nothing happens and it is False.

    Never blocks and may be called from any thread or task of the run.
    """
    run = current_run()
    if run is None:
        return False
    run.push(Custom(name, data))
    return True
