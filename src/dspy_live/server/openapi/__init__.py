"""The OpenAPI document of a server, made from its routes and its programs' schemas."""

from dspy_live.server.openapi.document import PAGES, build

__all__ = ["PAGES", "build"]
