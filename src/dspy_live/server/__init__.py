"""The server: any service over HTTP, server-sent events and WebSocket."""

from dspy_live.server.app import App, create_app
from dspy_live.server.mounted import Mounted
from dspy_live.server.serve import LiveServer, serve

__all__ = ["App", "LiveServer", "Mounted", "create_app", "serve"]
