"""``create_app``: DSPy programs as an ASGI application, to serve or to mount in one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime
from dspy_live.server import Mounted
from dspy_live.server import create_app as app_of

if TYPE_CHECKING:
    from dspy_live.server.app import App


def create_app(
    program: Any,
    *,
    execution: Execution = "auto",
    runtime: Runtime | None = None,
    **options: Any,
) -> App:
    """Return the ASGI application that serves ``program``.

    Mount it in a FastAPI or Starlette app (``app.mount("/qa", create_app(program))``), or hand it to any ASGI server.
    The LM is the one that ``dspy.configure`` was given, or the program's own.

    Args:
        program: a ``dspy.Module`` or a callable; or several by name, the first being the one behind ``/predict``.
        execution: as for ``asyncify``.
        runtime: layers and account; the process's own by default.
        options: everything that :func:`dspy_live.server.create_app` takes: ``api_keys``, ``max_body``,
            ``max_active``, ``drain``, ``grace``, ``heartbeat``, ``title`` and more.

    Raises ``TypeError`` for what is no program, ``ConfigurationError`` for options that can't work.
    """
    programs = program if isinstance(program, Mapping) else {_name(program): program}
    mounted = {}
    for name, one in programs.items():
        service = ProgramService(one, name=name, execution=execution, runtime=runtime, served=True)
        mounted[name] = Mounted(name, service.with_layers(), service.schema)
    return app_of(mounted, **options)


def _name(program: Any) -> str:
    """A name that a URL can carry: a class's is; a function's may be ``<lambda>``."""
    name = getattr(program, "__name__", None) or type(program).__name__
    return name if name.isidentifier() and name.isascii() else "program"
