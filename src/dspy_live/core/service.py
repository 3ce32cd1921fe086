"""The one idea: a Service opens a Call as a scoped stream of Events; a Layer wraps a Service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Predicted

T = TypeVar("T")


@runtime_checkable
class Receiver(Protocol[T]):
    """The reading end of a stream. One reader at a time; it ends, or it raises the failure.

    ``async for event in receiver`` is the usual way. :meth:`receive_many` is for a reader that
    writes: it waits once and takes all that is ready.
    """

    def __aiter__(self) -> AsyncIterator[T]: ...

    async def __anext__(self) -> T: ...

    async def receive_many(self) -> list[T]:
        """Wait until something is there and take all of it. An empty list is the end.

        Raises the stream's failure after everything that came before it was taken.
        Cancellation takes nothing.
        """
        ...


class Service(Protocol):
    """Anything that answers a call: an LM, a program, a cache in front of one, a remote server."""

    def open(self, call: Call) -> AbstractAsyncContextManager[Receiver[Event]]:
        """Start the work. Leaving the context ends it, all the way down, and waits for that end."""
        ...


Layer = Callable[[Service], Service]


def compose(service: Service, layers: Sequence[Layer]) -> Service:
    """Wrap ``service`` so that the first layer is the outermost: it sees a call first, its end last."""
    for layer in reversed(layers):
        service = layer(service)
    return service


async def fold(service: Service, call: Call) -> Any:
    """Run a call and return its result: the value of ``Predicted`` or the response of ``Completion``.

    Raises what the receiver raises. Cancelling it cancels the call.
    """
    result: Any = None
    async with service.open(call) as events:
        while batch := await events.receive_many():
            for event in batch:
                if isinstance(event, Predicted):
                    result = event.value if event.value is not None else event.outputs
                elif isinstance(event, Completion):
                    result = event.response
    return result
