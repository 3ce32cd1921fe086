"""The plain protocol: a question in, the answer's tokens out, then ``[DONE]``; an error closes the socket."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from dspy_live.core.call import new_id
from dspy_live.core.errors import Cancelled, LiveError, Overloaded, Stop
from dspy_live.server.encoders.plain import PlainText
from dspy_live.server.encoders.sinks import TextSink
from dspy_live.server.errors import ClientGone, public_error
from dspy_live.server.routes.inputs import new_call
from dspy_live.server.routes.question import question_inputs
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.served import ServedProgram

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.routes.websocket import Socket

WAITING = 16
"""Questions that may wait on one socket. A person asks one at a time; more is a client gone wrong."""

DONE = "[DONE]"
STOP = "[STOP]"
"""A client's frame that ends the answer under way and takes back the questions that wait; ``[DONE]`` follows."""


class PlainSession:
    """Answers one question after the other."""

    def __init__(self, app: App, program: ServedProgram, key: str, socket: Socket) -> None:
        self._app = app
        self._program = program
        self._key = key
        self._socket = socket
        self._questions: deque[str] = deque()
        self._run: RegisteredRun | None = None
        self._task: asyncio.Task[None] | None = None

    async def take(self, text: str) -> None:
        """Answer a question, now or when those before it are answered; ``[STOP]`` is none."""
        if text == STOP:
            self._questions.clear()
            if self._run is not None:
                self._run.stop(Cancelled("the answer was stopped by its client"))
            return
        if len(self._questions) >= WAITING:
            await self._socket.fail(Overloaded(f"{WAITING} questions wait on this socket already"))
            return
        self._questions.append(text)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer_all())

    async def close(self) -> None:
        """Stop the answer that is under way and wait for its end."""
        self._questions.clear()
        if self._run is not None:
            self._run.stop(ClientGone("the client closed its socket"))
        if self._task is not None:
            await self._task

    async def _answer_all(self) -> None:
        while self._questions:
            run_id = new_id()
            try:
                await self._answer(self._questions.popleft(), run_id)
            except ClientGone:
                return
            except Cancelled:
                if not self._socket.text(DONE):
                    await self._socket.room()
            except (Exception, Stop) as exc:
                await self._fail(public_error(exc, run_id))
                return

    async def _answer(self, question: str, run_id: str) -> None:
        program, socket = self._program, self._socket
        inputs = question_inputs(program.schema, question)
        call = new_call(program, inputs, None, run_id, self._key, stream=True, trace=socket.trace)
        self._run = run = RegisteredRun(self._app.runs, run_id, self._key)
        text = PlainText(program.schema, run.stop, hold=program.hold_text)
        try:
            with run:
                sink = TextSink(text, run.totals, socket.text, socket.room)
                result = await program.run(call, sink, run.totals)
                if rest := text.rest(result):
                    run.totals.token()
                    socket.text(rest)
        finally:
            self._run = None
        if not socket.text(DONE):
            await socket.room()

    async def _fail(self, error: LiveError) -> None:
        self._questions.clear()
        await self._socket.fail(error)
