"""Python clients of a dspy-live server: asynchronous and synchronous, over HTTP and WebSocket."""

from dspy_live.client.async_client import AsyncClient
from dspy_live.client.errors import ConnectionLost, RemoteError, Unreachable
from dspy_live.client.reply import Reply
from dspy_live.client.run import RemoteRun
from dspy_live.client.service import RemoteService
from dspy_live.client.socket import AsyncSocket
from dspy_live.client.sync_client import Client, SyncRun, SyncSocket

__all__ = [
    "AsyncClient",
    "AsyncSocket",
    "Client",
    "ConnectionLost",
    "RemoteError",
    "RemoteRun",
    "RemoteService",
    "Reply",
    "SyncRun",
    "SyncSocket",
    "Unreachable",
]
