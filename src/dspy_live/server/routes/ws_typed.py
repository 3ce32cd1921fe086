"""The typed protocol: JSON frames, several runs on one socket, credit.

The client sends ``{"type": "start", "id": …, "inputs": {…}}`` with, if it likes, ``program``,
``config``, ``stream`` and ``credit``; ``{"type": "cancel", "id": …}``; and
``{"type": "credit", "id": …, "n": …}``. ``id`` is the client's own name of the run, a string or a
whole number, free again after the run's ``done``.

The server sends ``{"id", "event", "seq", "data"}`` with the events and data of the event stream, and
at last ``done`` with ``null``. With ``credit`` it sends that many tokens, partial values and pieces of
reasoning, and then none until more credit comes; the order of events is kept, so what stands behind a
token waits with it, and so does the LM.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeGuard

from dspy_live.core.call import new_id
from dspy_live.core.errors import Cancelled, InputError, LiveError, NotFound, Stop
from dspy_live.core.events import Predicted
from dspy_live.server.encoders.events import frames
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.sinks import CreditSink, FrameSink
from dspy_live.server.errors import ClientGone, error_object, public_error
from dspy_live.server.routes.inputs import begin_history, in_session, new_call, session_name
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.served import ServedProgram, find
from dspy_live.server.transport.http import parse_object

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.routes.websocket import Socket

RUNS = 256
"""Runs at once on one socket; each is a task."""

_LONGEST_ID = 256
"""Characters of a run's id, which stands in each of its frames."""


class TypedSession:
    """The runs of one socket."""

    def __init__(self, app: App, program: ServedProgram, key: str, socket: Socket) -> None:
        self.app = app
        self.program = program
        self.key = key
        self.socket = socket
        self.runs: dict[str | int, TypedRun] = {}

    async def take(self, text: str) -> None:
        """Carry out one frame; a mistake in it is answered by an ``error`` frame, the socket stays open."""
        run_id: Any = None
        try:
            frame = parse_object(text, "a frame")
            run_id = frame.get("id")
            if not _is_id(run_id):
                run_id = None
                raise InputError(
                    f"'id' must be a string of at most {_LONGEST_ID} characters or a whole number",
                    field="id",
                    expected="str | int",
                )
            self._carry_out(frame, run_id)
        except LiveError as exc:
            error = dumps(error_object(exc, None)).decode()
            head = dumps(run_id).decode()
            if not self.socket.text(f'{{"id":{head},"event":"error","seq":0,"data":{error}}}'):
                await self.socket.room()

    async def close(self) -> None:
        """Stop every run and wait for their ends."""
        tasks = [run.task for run in self.runs.values()]
        for run in list(self.runs.values()):
            run.stop(ClientGone("the client closed its socket"))
        if tasks:
            await asyncio.wait(tasks)

    def _carry_out(self, frame: dict[str, Any], run_id: str | int) -> None:
        kind = frame.get("type")
        if kind == "start":
            if run_id in self.runs:
                raise InputError(f"a run with the id {run_id!r} is under way", field="id", expected="another id")
            if len(self.runs) >= RUNS:
                raise InputError(f"{RUNS} runs are under way on this socket", field="type", expected="another socket")
            self.runs[run_id] = TypedRun(self, run_id, frame)
        elif kind == "cancel":
            self._run(run_id).stop(Cancelled("the run was cancelled by its client"))
        elif kind == "credit":
            self._run(run_id).add_credit(_credit(frame.get("n"), "n"))
        else:
            raise InputError("'type' must be 'start', 'cancel' or 'credit'", field="type", expected="start")

    def _run(self, run_id: str | int) -> TypedRun:
        try:
            return self.runs[run_id]
        except KeyError:
            raise NotFound(f"no run {run_id!r} is under way on this socket") from None


class TypedRun:
    """One run of a typed session, in a task of its own."""

    def __init__(self, session: TypedSession, client_id: str | int, frame: dict[str, Any]) -> None:
        self._session = session
        self._client_id = client_id
        self._run = run = RegisteredRun(session.app.runs, new_id(), session.key)
        self._encoder = frames(client_id, run.id, run.totals)
        self._sink = FrameSink(self._encoder, self._write, session.socket.room, run.stop)
        self._credit = None
        if frame.get("credit") is not None:
            self._credit = CreditSink(self._sink, _credit(frame["credit"], "credit"))
        self.stop = run.stop
        self.task = asyncio.create_task(self._serve(frame))

    def add_credit(self, n: int) -> None:
        """Let ``n`` more counted events through; without credit at the start there is nothing to add to."""
        if self._credit is None:
            raise InputError("this run was started without credit", field="n", expected="credit at the start")
        self._credit.add(n)

    async def _serve(self, frame: dict[str, Any]) -> None:
        try:
            try:
                last = self._encoder.prediction(await self._answer(frame))
            except ClientGone:
                return
            except (Exception, Stop) as exc:
                last = self._encoder.error(public_error(exc, self._run.id))
            if not self._write(last):
                await self._session.socket.room()
        finally:
            del self._session.runs[self._client_id]
        self._write(self._encoder.end())

    async def _answer(self, frame: dict[str, Any]) -> Predicted:
        session, credit = self._session, self._credit
        name = frame.get("program")
        session.app.keys.check_program(session.key, session.program.name if name is None else str(name))
        program = session.program if name is None else find(session.app.programs, str(name))
        stream = frame.get("stream", True) is not False
        inputs, config = frame.get("inputs", {}), frame.get("config")
        named = frame.get("session")
        if named is not None and isinstance(inputs, dict):
            begin_history(program, inputs)
        call = new_call(program, inputs, config, self._run.id, session.key, stream=stream, trace=session.socket.trace)
        if named is not None:
            call = in_session(call, program, session_name(named))
        with self._run:
            if credit is None:
                return await program.run(call, self._sink, self._run.totals)
            try:
                result = await program.run(call, credit, self._run.totals)
            except (Exception, Stop):
                await credit.none_held()  # what came before the failure comes before it
                raise
            await credit.none_held()
            program.check_whole(result, self._run.totals)  # which the held events have added to
            return result

    def _write(self, frame: bytes) -> bool:
        return self._session.socket.text(frame.decode())


def _is_id(value: Any) -> TypeGuard[str | int]:
    return (isinstance(value, str) and len(value) <= _LONGEST_ID) or type(value) is int


def _credit(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{field!r} must be a whole number of events, 0 or more", field=field, expected="int")
    return value
