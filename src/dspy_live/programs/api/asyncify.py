"""``asyncify``: a DSPy program as an async callable, any number of calls at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar, cast, overload

from dspy_live.core.service import Layer
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.programs.api.calls import layers_of, new_call, value_of
from dspy_live.programs.api.event_loop import require_asyncio
from dspy_live.programs.run.inner_run import InnerSink, run_around
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.mistakes import checked_layers, names_near_options
from dspy_live.runtime.runtime import Runtime

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class AsyncProgram(Protocol[R_co]):
    """The function that :func:`asyncify` returns: it takes what ``program`` takes. ``layers`` are those around it."""

    program: Any
    layers: list[Layer]

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, R_co]: ...


@overload
def asyncify(
    program: Callable[..., Awaitable[R]],
    *,
    execution: Execution = "auto",
    timeout: float | None = None,
    runtime: Runtime | None = None,
    layers: Sequence[Layer] | None = None,
) -> AsyncProgram[R]: ...
@overload
def asyncify(
    program: Callable[..., R],
    *,
    execution: Execution = "auto",
    timeout: float | None = None,
    runtime: Runtime | None = None,
    layers: Sequence[Layer] | None = None,
) -> AsyncProgram[R]: ...
@names_near_options
def asyncify(
    program: Callable[..., Any],
    *,
    execution: Execution = "auto",
    timeout: float | None = None,
    runtime: Runtime | None = None,
    layers: Sequence[Layer] | None = None,
) -> AsyncProgram[Any]:
    """Return an async function that takes what ``program`` takes and returns what it returns.

    Each call has its own state; there is no cap on concurrent calls but the runtime's own layers and,
    for programs that run in threads, its worker threads (256).

    Args:
        program: a ``dspy.Module`` or a callable.
        execution: ``"native"``, ``"thread"``, ``"inline"``, or ``"auto"``: native where every module of the
            program has ``aforward``, else thread.
        timeout: seconds for each call; over it the call ends with :class:`~dspy_live.core.errors.DeadlineExceeded`.
        runtime: layers and account; the process's own by default.
        layers: the whole list of layers around the program, the outermost first, in place of the default one: a
            deadline of ``timeout``, ``Detached``, the runtime's layers. The function's attribute ``layers`` shows it.

    Called inside a program that runs here already, it is part of that run: its words stream to whoever reads that one,
    its usage counts against that one's budgets.

    A keyword ``config`` of a call sets LM options for it: ``await f(question=..., config={"rollout_id": 7})``.

    Raises ``TypeError`` for what is no program, no layer or no option, ``ValueError`` for a timeout or an execution
    that can't work. A call raises what the program raises, and ``RuntimeError`` where no asyncio loop runs. Cancelling
    a call closes its LM connections at once and stops the program at its next LM or tool call.
    """
    service = ProgramService(program, execution=execution, runtime=runtime)
    given = None if layers is None else checked_layers("layers", layers)
    listed = layers_of(service, timeout, given)
    layered = service.layered(listed)

    async def async_program(*args: Any, **kwargs: Any) -> Any:
        require_asyncio("asyncify")
        outer = run_around()
        if outer is None:
            sink: Sink = DISCARD
            call = new_call(service, args, kwargs, stream=False)
        else:
            sink = InnerSink(outer)
            call = new_call(service, args, kwargs, stream=outer.call.stream, parent=outer.id)
        return value_of(service, await layered(call, sink))

    async_program.__name__ = async_program.__qualname__ = f"asyncified_{service.name}"
    async_program.__doc__ = f"{service.name}, asynchronously."
    async_program.program = program  # type: ignore[attr-defined]
    async_program.layers = listed  # type: ignore[attr-defined]
    return cast("AsyncProgram[Any]", async_program)
