"""The service that a layer makes of another."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from dspy_live.core.call import Call
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service

Opened = AbstractAsyncContextManager[Receiver[Event]]


class _Opens(Protocol):
    def _open(self, inner: Service, call: Call) -> Opened: ...


class Wrapped:
    """Opens ``inner`` by way of a layer. One layer may wrap several services: they share its limits."""

    __slots__ = ("_inner", "_layer")

    def __init__(self, layer: _Opens, inner: Service) -> None:
        self._layer = layer
        self._inner = inner

    def open(self, call: Call) -> Opened:
        return self._layer._open(self._inner, call)
