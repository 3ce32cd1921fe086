"""The layer that tells a program of its conversation and keeps what was said."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError, Overloaded
from dspy_live.core.events import Predicted, Result
from dspy_live.core.schema import Field, Schema
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.server.encoders.json import dumps
from dspy_live.server.routes.messages import history_input
from dspy_live.server.served import ServedProgram
from dspy_live.server.sessions.memory import MemorySessions
from dspy_live.server.sessions.opened import open_sessions
from dspy_live.server.sessions.store import Session, SessionStore, Turn
from dspy_live.server.sessions.turns import Lines

logger = logging.getLogger("dspy_live.server")

DAY = 86400.0
PRUNE_EVERY = 3600.0
"""Seconds between two looks for conversations that are too old."""
MOST_TURNS = 200


class SessionsDown(Overloaded):
    """The store of conversations can't be reached."""

    code = "sessions_down"


class Sessions:
    """The conversations of one server.

    Args:
        store: where they are kept.
        retention: seconds after its last use for which a conversation is kept; ``None`` for ever.
        most_turns: the turns that a conversation keeps, and a program is told of; the oldest go.
    """

    def __init__(
        self, store: SessionStore | None = None, *, retention: float | None = 30 * DAY, most_turns: int = MOST_TURNS
    ) -> None:
        self.store = store or MemorySessions()
        self.retention = retention
        self.most_turns = most_turns
        self.lines = Lines()
        self._pruned = 0.0

    @classmethod
    def at(cls, given: Sessions | SessionStore | str | None) -> Sessions:
        """Return the sessions of a store, or of the address of one; ``None`` for this process's memory."""
        if isinstance(given, Sessions):
            return given
        return cls(open_sessions(given) if isinstance(given, str) else given)

    def around(self, program: ServedProgram) -> ServedProgram:
        """Return a program that goes on with the conversation that a call names.

        One without an input of type ``dspy.History`` is returned as it is: its calls name none.
        """
        name = history_input(program.schema)
        if name is None:
            return program
        return replace(program, service=InSession(self, program.service, program.schema, name))

    async def session_of(self, key: str, turn: str) -> str | None:
        """Return the session of a key's turn, or ``None``. Raises :class:`SessionsDown`."""
        if not turn:
            return None
        with self.reached():
            return await self.store.session_of(key, turn)

    async def delete(self, key: str, session: str) -> bool:
        """Remove a conversation; what is being answered in it now is not kept either."""
        self.lines.deleted(key, session)
        with self.reached():
            return await self.store.delete(key, session)

    @staticmethod
    @contextlib.contextmanager
    def reached() -> Iterator[None]:
        """While inside, a store that can't be reached is a :class:`SessionsDown`."""
        try:
            yield
        except OSError as exc:
            raise SessionsDown("the conversations can't be reached now; ask again") from exc

    async def prune(self) -> None:
        """Remove the conversations that are too old, once an hour at most."""
        now = time.time()
        if self.retention is None or now - self._pruned < PRUNE_EVERY:
            return
        self._pruned = now
        with self.reached():
            await self.store.prune(now - self.retention)

    async def keep(self, call: Call, session: str, turns: Callable[[], list[Turn]]) -> None:
        """Add turns to a conversation; what prevents it is logged."""
        try:
            await self.store.append(call.key, session, call.program, turns(), self.most_turns)
        except Exception as exc:
            # The answer was made and paid for: its client gets it, and the conversation goes on without it.
            logger.error("run %s: its turn could not be kept: %s", call.id, exc)


class InSession:
    """A program's service that goes on with the conversation that a call names.

    Args:
        sessions: the server's.
        service: the program's.
        schema: the program's.
        history: the input that takes the conversation.
    """

    def __init__(self, sessions: Sessions, service: Service, schema: Schema, history: str) -> None:
        self.service = service
        self._sessions = sessions
        self._schema = schema
        self._history = next(f for f in schema.inputs if f.name == history)

    async def __call__(self, call: Call, sink: Sink) -> Result:
        if not call.session:
            return await self.service(call, sink)
        sessions = self._sessions
        async with sessions.lines.turn(call.key, call.session) as line:
            await sessions.prune()
            with sessions.reached():
                kept = await sessions.store.load(call.key, call.session)
            if kept is not None and kept.program != call.program:
                raise InputError(
                    f"the session {call.session!r} is one of the program {kept.program!r}", field="session"
                )
            session, turns, branched = _followed(call, kept)
            own = _messages(call.inputs.get(self._history.name))
            result = await self.service(self._told(call, turns, own), sink)
            if call.keep and isinstance(result, Predicted) and not line.deleted:
                await sessions.keep(call, session, lambda: [*branched, self._turn(call, own, result)])
            return result

    def _told(self, call: Call, turns: list[Turn], own: list[Any]) -> Call:
        earlier = [restored(self._schema, message) for turn in turns for message in turn.messages]
        history: Any = {"messages": earlier + own}
        convert = self._history.convert
        return call.but(inputs={**call.inputs, self._history.name: convert(history) if convert else history})

    def _turn(self, call: Call, own: list[Any], result: Predicted) -> Turn:
        said = {name: plain(value) for name, value in call.inputs.items() if name != self._history.name}
        return Turn(call.id, time.time(), orjson.loads(dumps([*map(plain, own), said | result.outputs])))


def _followed(call: Call, kept: Session | None) -> tuple[str, list[Turn], list[Turn]]:
    """Return the session that a call's turn goes to, the turns before it, and those to copy there first.

    A call that follows another turn than the last begins a session of its own, with the turns up to that one.
    """
    turns = kept.turns if kept is not None else []
    if not call.follows:
        return call.session, turns, []
    at = next((i for i, turn in enumerate(turns) if turn.id == call.follows), None)
    if at is None:
        raise InputError(f"the answer {call.follows!r} is no longer kept", field="previous_response_id")
    if at == len(turns) - 1:
        return call.session, turns, []
    before = turns[: at + 1]
    return call.id, before, [Turn("", turn.created, turn.messages) for turn in before]


def _messages(history: Any) -> list[Any]:
    messages = history.get("messages") if isinstance(history, Mapping) else getattr(history, "messages", None)
    return list(messages or ())


def restored(schema: Schema, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kept message with the values of typed inputs as the program takes them."""
    fields: dict[str, Field] = {f.name: f for f in schema.inputs if not f.is_text and f.convert is not None}
    made = dict(message)
    for name in made.keys() & fields.keys():
        convert = fields[name].convert
        assert convert is not None
        with contextlib.suppress(Exception):  # the program has changed since
            made[name] = convert(made[name])
    return made


def plain(value: Any) -> Any:
    """Return an input as the JSON that it can be made of again; a pydantic object is its fields."""
    fields = getattr(type(value), "model_fields", None)
    if isinstance(fields, Mapping):
        return {name: plain(getattr(value, name)) for name in fields if getattr(value, name) is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value
