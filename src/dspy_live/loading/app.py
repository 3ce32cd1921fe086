"""``create_app``: DSPy programs as an ASGI application, to serve or to mount in one's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dspy_live.core.service import Layer
from dspy_live.loading.ask_lm import asker_of
from dspy_live.loading.configure import asks_simulated_lm
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime
from dspy_live.server import ServedProgram
from dspy_live.server import create_app as app_of
from dspy_live.server.served import layers_of, shed_of

if TYPE_CHECKING:
    from dspy_live.server.app import App


def create_app(
    program: Any,
    *,
    execution: Execution = "auto",
    runtime: Runtime | None = None,
    max_active: int | None = None,
    timeout: float | None = None,
    layers: Sequence[Layer] | None = None,
    hold_text: bool | Collection[str] = False,
    **options: Any,
) -> App:
    """Return the ASGI application that serves ``program``.

    Mount it in a FastAPI or Starlette app (``app.mount("/qa", create_app(program))``), or hand it to any ASGI server.
    The LM is the one that ``dspy.configure`` was given, or the program's own. ``create_app(…).layers`` are the layers
    around the programs.

    Args:
        program: a ``dspy.Module`` or a callable; or several by name, the first being the one behind ``/predict``.
        execution: as for ``asyncify``.
        runtime: layers and account; the process's own by default.
        max_active: the most runs at once, of all programs together; further ones get 503. ``None``: no limit here.
        timeout: the most seconds that a run may take; a longer one gets 504. ``None``: no limit here.
        layers: what stands around each program, the outermost first; by default
            ``Deadline(timeout)``, ``Detached()`` for a program that may block its thread, ``Shed(max_active)`` and the
            runtime's layers.
        hold_text: plain WebSocket and OpenAI's protocol give a program's text out at its end only; or the names of the
            programs for which they do. For a program whose text changes on the way: these two can't take words back.
        options: everything else that :func:`dspy_live.server.create_app` takes: ``api_keys``, ``max_body``,
            ``drain``, ``grace``, ``heartbeat``, ``title`` and more.

    Raises ``TypeError`` for what is no program, ``ConfigurationError`` for options that can't work.
    """
    programs = program if isinstance(program, Mapping) else {_name(program): program}
    services = {
        name: ProgramService(one, name=name, execution=execution, runtime=runtime, served=True)
        for name, one in programs.items()
    }
    simulated = [name for name, one in programs.items() if asks_simulated_lm(one)]
    served = serve_services(services, max_active, timeout, layers, hold_text=hold_text, simulated=simulated)
    if options.get("ready_lm") is not None:
        options.setdefault("ask_lm", asker_of(services.values()))
    return app_of(served, **options)


def serve_services(
    services: Mapping[str, ProgramService],
    max_active: int | None = None,
    timeout: float | None = None,
    layers: Sequence[Layer] | None = None,
    *,
    hold_text: bool | Collection[str] = False,
    simulated: Collection[str] = (),
    deadlines: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, ServedProgram]:
    """Return the programs of a server by name, each inside its layers; the arguments are those of :func:`create_app`.

    ``simulated`` names the programs whose LM is the simulated one, ``deadlines`` those with a timeout of their own.
    """
    shed = shed_of(max_active)
    served = {}
    for name, service in services.items():
        seconds = deadlines.get(name, timeout)
        around = layers_of(shed, seconds, layers, inner=service.runtime.layers, may_block=service.may_block)
        hold = hold_text if isinstance(hold_text, bool) else name in hold_text
        served[name] = ServedProgram(
            name, service.layered(around), service.schema, name in simulated, hold_text=hold, layers=around
        )
    return served


def _name(program: Any) -> str:
    """A name that a URL can carry: a class's is; a function's may be ``<lambda>``."""
    name = getattr(program, "__name__", None) or type(program).__name__
    return name if name.isidentifier() and name.isascii() else "program"
