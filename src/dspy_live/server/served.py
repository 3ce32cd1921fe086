"""The programs of a server: a service, its schema, and its name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LifecycleError, LMBadReply, LMTruncated, NotFound
from dspy_live.core.events import Predicted, Result
from dspy_live.core.schema import Schema
from dspy_live.core.service import Layer, Service, compose
from dspy_live.core.sink import Sink
from dspy_live.layers.deadline import Deadline
from dspy_live.layers.detached import Detached
from dspy_live.layers.shed import Shed
from dspy_live.server.runs.totals import RunTotals

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


def is_name(name: str) -> bool:
    """True for what can be a program's name in an address: letters, digits, ``_ . -``, in ASCII."""
    return _NAME.match(name) is not None


@dataclass(frozen=True, slots=True)
class ServedProgram:
    """One program of a server.

    Args:
        name: its name in ``/programs/{name}`` and as an OpenAI model; letters, digits, ``_ . -``.
        service: called once per run.
        schema: the inputs are checked against it and the documentation is made from it.
        simulated: true when its LM is the simulated one; replies then carry ``X-Simulated: 1``.
        hold_text: plain WebSocket and OpenAI's protocol give its text out at the end only, not as it comes. For a
            program whose text changes on the way: these two can't take words back.
        layers: the layers that ``service`` stands in already, the outermost first; by default ``create_app`` puts its
            own around it.
    """

    name: str
    service: Service
    schema: Schema
    simulated: bool = False
    hold_text: bool = False
    layers: tuple[Layer, ...] | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ConfigurationError(
                f"a program's name is made of letters, digits, '_', '.' and '-', and begins with none of the last two; "
                f"got {self.name!r}"
            )

    async def run(self, call: Call, sink: Sink, totals: RunTotals) -> Predicted:
        """Run the program and return its prediction; raises what the service raises.

        ``totals`` are those that ``sink`` adds to. Where they tell of a reply that was cut, a prediction with an empty
        output and a reply that could not be read are an :class:`LMTruncated`.
        """
        try:
            result = await self.service(call, sink)
        except LMBadReply as exc:
            self.explain(exc, totals)
            raise
        return self.prediction(result, totals)

    def prediction(self, result: Result, totals: RunTotals) -> Predicted:
        """Return what :meth:`run` returns for the service's result."""
        if not isinstance(result, Predicted):
            raise LifecycleError("the run ended without a prediction")
        self.check_whole(result, totals)
        return result

    def explain(self, error: LMBadReply, totals: RunTotals) -> None:
        """Raise :class:`LMTruncated` where a reply could not be read because it was cut."""
        if totals.truncated:
            raise _truncated("it could not be read as the program's output") from error

    def check_whole(self, result: Predicted, totals: RunTotals) -> None:
        """Raise :class:`LMTruncated` where a reply of the run was cut and an output is empty that must not be."""
        if totals.truncated:
            empty = [f.name for f in self.schema.outputs if f.required and result.outputs.get(f.name, f) in (None, "")]
            if empty:
                raise _truncated(f"{', '.join(map(repr, empty))} came out empty")


def _truncated(what: str) -> LMTruncated:
    return LMTruncated(f"the LM's reply was cut at its limit of tokens, and {what}; ask with a larger max_tokens")


def layers_of(
    max_active: Shed | None,
    timeout: float | None,
    layers: Sequence[Layer] | None,
    *,
    inner: Sequence[Layer] = (),
    may_block: bool = False,
) -> tuple[Layer, ...]:
    """Return the layers around a server's program, the outermost first.

    Those are ``layers``; by default a deadline (``timeout``, seconds), ``Detached`` for a program that may block its
    thread, the server's limit of runs (``max_active``), and ``inner``. The limit is inside of the other two: a run that
    was left because its thread blocks counts until it has ended.
    """
    if layers is not None:
        if max_active is not None or timeout is not None:
            raise ConfigurationError("give max_active and timeout, or layers with a Shed and a Deadline, not both")
        return tuple(layers)
    deadline = () if timeout is None else (Deadline(timeout),)
    detached = (Detached(),) if may_block else ()
    shed = () if max_active is None else (max_active,)
    return (*deadline, *detached, *shed, *inner)


def shed_of(max_active: int | None) -> Shed | None:
    """Return the one limit of runs that all programs of a server share."""
    return None if max_active is None else Shed(max_active)


def layered(program: ServedProgram, layers: tuple[Layer, ...]) -> ServedProgram:
    """Return ``program`` inside ``layers``, or as it is where it stands in layers already."""
    if program.layers is not None:
        return program
    return replace(program, service=compose(program.service, layers), layers=layers)


def by_name(programs: Mapping[str, ServedProgram] | ServedProgram) -> dict[str, ServedProgram]:
    """Return the programs by name; the first is the server's default program."""
    if isinstance(programs, ServedProgram):
        return {programs.name: programs}
    if not programs:
        raise ConfigurationError("a server needs at least one program")
    for name, program in programs.items():
        if name != program.name:
            raise ConfigurationError(f"the program {program.name!r} is listed under another name, {name!r}")
    return dict(programs)


def find(programs: Mapping[str, ServedProgram], name: str) -> ServedProgram:
    """Return the program of that name; raise :class:`NotFound` that lists the names there are."""
    try:
        return programs[name]
    except KeyError:
        raise NotFound(f"no program {name!r}; this server has {', '.join(map(repr, programs))}") from None
