"""``/mcp``: the programs as tools, for MCP's clients of 2026 and of 2025."""

from dspy_live.server.routes.mcp.calls import McpCalls
from dspy_live.server.routes.mcp.endpoint import leave, mcp
from dspy_live.server.routes.mcp.rpc import rpc_error_object

__all__ = ["McpCalls", "leave", "mcp", "rpc_error_object"]
