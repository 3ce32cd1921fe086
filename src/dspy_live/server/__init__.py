"""The server: any service over HTTP, server-sent events and WebSocket."""

from dspy_live.server.app import App, create_app
from dspy_live.server.mounted import Mounted

__all__ = ["App", "Mounted", "create_app"]
