"""The loop that an embedding runs on its one Python thread, and the commands that it carries out."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

import msgspec

from dspy_live.core.errors import Cancelled, NotFound
from dspy_live.core.schema import Field, Schema
from dspy_live.core.service import Service
from dspy_live.embed.failures import failure_of
from dspy_live.embed.outbox import Outbox
from dspy_live.embed.programs import open_program
from dspy_live.embed.run import HostRun
from dspy_live.embed.wire import (
    Cancel,
    Command,
    Credit,
    Load,
    Loaded,
    LoadedField,
    Settings,
    Shutdown,
    Start,
    Unload,
)
from dspy_live.runtime.execution.background import new_event_loop

log = logging.getLogger("dspy_live.embed")

Take = Callable[[], bytes]
Deliver = Callable[[bytes], object]


def main(take: Take, deliver: Deliver, wake: int, settings: bytes) -> None:
    """Run the loop until the host sends :class:`~dspy_live.embed.wire.Shutdown`.

    Args:
        take: returns the commands that wait, as one JSON array, and empties the host's queue.
        deliver: takes a batch of replies; neither may block.
        wake: a socket's file descriptor on which a byte says that commands wait; it is owned, and closed at the end.
        settings: :class:`~dspy_live.embed.wire.Settings` as JSON.
    """
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with socket.socket(fileno=wake) as waker:
            waker.setblocking(False)
            _run(loop, _serve(take, deliver, waker, msgspec.json.decode(settings, type=Settings)))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, serve: Coroutine[Any, Any, None]) -> None:
    """Run to the end of ``serve``, also where a program's own task raises what asyncio throws out of the whole loop."""
    serving = loop.create_task(serve)
    while not serving.done():
        try:
            loop.run_until_complete(serving)
        except (KeyboardInterrupt, SystemExit) as exc:
            if serving.done():
                raise
            log.warning("a task of a program raised %s; its run ends, the others go on", type(exc).__name__)


async def _serve(take: Take, deliver: Deliver, waker: socket.socket, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    host = Host(take, Outbox(deliver, loop), settings)

    def woken() -> None:
        try:
            if not waker.recv(4096):
                host.shutdown(0.0)  # the host's end is closed: nobody is there any more
        except BlockingIOError:
            return
        host.carry_out()

    loop.add_reader(waker.fileno(), woken)
    try:
        host.carry_out()
        await host.stopped
    finally:
        loop.remove_reader(waker.fileno())


class Host:
    """Carries out commands. Everything of it runs on the loop's thread."""

    def __init__(self, take: Take, outbox: Outbox, settings: Settings) -> None:
        self._take = take
        self._outbox = outbox
        self._settings = settings
        self._programs: dict[int, tuple[Service, Schema]] = {}
        self._runs: dict[int, HostRun] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._decoder = msgspec.json.Decoder(list[Command])
        self._stopping: asyncio.Task[None] | None = None
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def carry_out(self) -> None:
        """Take and carry out all commands that wait."""
        for command in self._decoder.decode(self._take() or b"[]"):
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Start():
                self._start(command)
            case Credit(ident, n):
                if ident in self._runs:
                    self._runs[ident].credit(n)
            case Cancel(ident):
                if ident in self._tasks:
                    self._tasks[ident].cancel()
            case Load():
                self._load(command)
            case Unload(ident):
                self._programs.pop(ident, None)
            case Shutdown(patience):
                self.shutdown(patience)
            case _:
                assert_never(command)

    def _load(self, command: Load) -> None:
        try:
            ready = open_program(command.target, command.execution, self._settings)
        except BaseException as exc:  # a target's own code may raise anything, SystemExit too
            self._outbox.send(command.id, [], failure_of(exc))
            return
        schema = ready.schema
        self._programs[command.id] = ready.service.layered(), schema
        loaded = Loaded(
            name=schema.name,
            lm=ready.lm.label,
            execution=ready.service.execution,
            inputs=[_field(field) for field in schema.inputs],
            outputs=[_field(field) for field in schema.outputs],
            description=schema.description,
            text=schema.last_text_output,
        )
        self._outbox.send(command.id, [loaded], True)

    def _start(self, command: Start) -> None:
        try:
            if self._stopping is not None:
                raise Cancelled("the runtime is shutting down")
            program = self._programs.get(command.program)
            if program is None:
                raise NotFound("this program was unloaded")
            service, schema = program
            inputs = schema.check(command.inputs)
        except Exception as exc:
            self._outbox.send(command.id, [], failure_of(exc))
            return
        run = HostRun(command, service, self._outbox)
        task = asyncio.get_running_loop().create_task(run.drive(inputs))
        self._runs[command.id] = run
        self._tasks[command.id] = task
        task.add_done_callback(lambda _: self._ended(command.id))

    def _ended(self, ident: int) -> None:
        # Here and not in the task: one that is cancelled before its first step runs no code at all.
        del self._tasks[ident]
        self._runs.pop(ident).report()

    def shutdown(self, patience: float) -> None:
        """Cancel all runs; the loop stops when they have ended, or after ``patience`` seconds."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop(patience))

    async def _stop(self, patience: float) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=patience)
            if late:
                log.warning("%d runs had not ended %.1f s after they were cancelled", len(late), patience)
        self._outbox.flush()
        self.stopped.set_result(None)


def _field(field: Field) -> LoadedField:
    return LoadedField(field.name, field.type, field.description, field.required)
