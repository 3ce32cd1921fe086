"""A conversation as a program's inputs: the last thing that the user said is the input, what came before is history.

Every chat protocol is read into the same turns first. A user's images, files and sounds go to inputs of those types,
system messages to an input that is made for them, earlier turns to an input of type ``dspy.History``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dspy_live.core.errors import InputError
from dspy_live.core.schema import Field, Schema
from dspy_live.server.errors import BadRequest, Unsupported
from dspy_live.server.routes.question import question_inputs
from dspy_live.server.transport.http import parse_object

Role = Literal["user", "assistant", "system", "tool"]
Kind = Literal["Image", "File", "Audio"]

SYSTEM_INPUTS = ("system", "system_prompt", "system_message", "instructions")
"""Names of text inputs that take a client's system messages."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """What stands beside the text of a message.

    Args:
        kind: the type of the input that takes it.
        value: DSPy's JSON form of it: ``{"url": …}``, ``{"file_data": …, "filename": …}``, ``{"data": …}``.
        where: its place in the request, for errors.
    """

    kind: Kind
    value: dict[str, Any]
    where: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: who says it, its text, and what is attached. ``where`` is its place in the request."""

    role: Role
    text: str
    attachments: tuple[Attachment, ...] = ()
    where: str = "messages"


@dataclass(slots=True)
class Conversation:
    """A conversation's inputs, and the places of what the program could not be told."""

    inputs: dict[str, Any]
    ignored: list[str] = field(default_factory=list)


def history_input(schema: Schema) -> str | None:
    """Return the name of the input that takes earlier turns, or ``None``."""
    return next((f.name for f in schema.inputs if _is(f, "History")), None)


def conversation(schema: Schema, turns: Sequence[Turn], where: str = "messages") -> Conversation:
    """Return the inputs that a conversation stands for. Raises :class:`InputError` where the program can't take it.

    The last turn must be the user's. A system message that no input takes is named in ``ignored``: most clients send
    one whether anybody wrote it or not.
    """
    system = [turn for turn in turns if turn.role == "system" and turn.text.strip()]
    talk = [turn for turn in turns if turn.role != "system"]
    if not talk or talk[-1].role != "user":
        raise InputError("the last message must be the user's", field=where, expected="a user message last")
    history = history_input(schema)
    made = Conversation({})
    place = next((f.name for f in schema.inputs if f.name in SYSTEM_INPUTS and f.is_text), None)
    others = [f for f in schema.inputs if f.name not in (history, place if system else None)]
    if system and place is not None and others:
        made.inputs[place] = "\n\n".join(turn.text for turn in system)
    else:
        others = [f for f in schema.inputs if f.name != history]
        made.ignored = [turn.where for turn in system]
    rest = Schema(schema.name, tuple(others), schema.outputs, open=schema.open)
    made.inputs |= _message_inputs(rest, talk[-1])
    if history is not None and history not in made.inputs:
        made.inputs[history] = {"messages": list(_pairs(rest, talk[:-1]))}
    return made


def _pairs(schema: Schema, talk: Iterable[Turn]) -> Iterator[dict[str, Any]]:
    """Yield the user's turns with the answers that followed; of several answers to one turn the last counts."""
    answer = schema.last_text_output or "answer"
    pair: dict[str, Any] | None = None
    for turn in talk:
        if turn.role == "user":
            if pair is not None:
                yield pair
            pair = _message_inputs(schema, turn)
        elif turn.role == "assistant" and pair is not None and turn.text:
            pair[answer] = turn.text
    if pair is not None:
        yield pair


def _message_inputs(schema: Schema, turn: Turn) -> dict[str, Any]:
    """Return the inputs of one message of the user's."""
    inputs = _attached(schema, turn.attachments)
    rest = tuple(f for f in schema.inputs if f.name not in inputs)
    if inputs and not turn.text.strip() and not any(f.required for f in rest):
        return inputs
    if inputs and (texts := [f for f in rest if f.is_text and f.required]) and len(texts) == 1:
        rest = (*texts, *(f for f in rest if not f.required))
    return inputs | _question(Schema(schema.name, rest, schema.outputs, open=schema.open), turn)


def _question(schema: Schema, turn: Turn) -> dict[str, Any]:
    try:
        return question_inputs(schema, turn.text)
    except InputError as unclear:
        try:
            return parse_object(turn.text, "the last user message")
        except BadRequest:
            raise unclear from None


def _attached(schema: Schema, attachments: Iterable[Attachment]) -> dict[str, Any]:
    """Return the inputs that take the attachments: each the first input of its type that has room."""
    inputs: dict[str, Any] = {}
    for attachment in attachments:
        kind = attachment.kind
        for f in (one for one in schema.inputs if _is(one, kind)):
            if re.search(rf"\blist\[(dspy\.)?{kind}\]", f.type):
                inputs.setdefault(f.name, []).append(attachment.value)
            elif f.name not in inputs:
                inputs[f.name] = attachment.value
            else:
                continue
            break
        else:
            free = "no more" if any(_is(one, kind) for one in schema.inputs) else "no"
            raise Unsupported(
                f"{attachment.where}: this program has {free} input of type dspy.{kind}, so it can't be given one",
                param=attachment.where,
            )
    return inputs


def _is(f: Field, kind: str) -> bool:
    return re.search(rf"\b{kind}\b", f.type) is not None
