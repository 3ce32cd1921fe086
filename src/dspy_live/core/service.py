"""The one idea: a Service runs a Call and tells a Sink what happens; a Layer turns a Service into a Service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.sink import Sink


class Service(Protocol):
    """Anything that answers a call: an LM, a program, a cache in front of one, a remote server.

    ``result = await service(call, sink)``. The await is the lifetime: when it returns, the work has really ended.
    It returns the result and raises the failure. Cancelling it ends everything below, down to the LM's socket.
    """

    async def __call__(self, call: Call, sink: Sink, /) -> Result: ...


Layer = Callable[[Service], Service]
"""Usually an async function around another one::

    def logged(service):
        async def run(call, sink):
            print("begins", call.id)
            return await service(call, sink)
        return run
"""


def compose(service: Service, layers: Sequence[Layer]) -> Service:
    """Wrap ``service`` so that the first layer is the outermost: it sees a call first, its result last."""
    for layer in reversed(layers):
        service = layer(service)
    return service
