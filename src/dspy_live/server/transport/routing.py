"""A table of routes. Exact paths are one dictionary lookup; patterns such as ``/runs/{id}`` come after."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from dspy_live.core.errors import LiveError, NotFound
from dspy_live.server.errors import MethodNotAllowed, error_object
from dspy_live.server.keys.key import KeyScope

if TYPE_CHECKING:
    from dspy_live.server.transport.http import Request

    Handler = Callable[[Request], Awaitable[None]]


ErrorObject: TypeAlias = "Callable[[LiveError, str | None], dict[str, Any]]"


@dataclass(frozen=True, slots=True)
class Route:
    """One route: open routes ask for no key; ``query_key`` ones also take it from the query string. The key must have a
    scope of ``wants``.

    ``error_object`` makes the body of its error replies. ``of_run`` routes are about the run with the path's ``id`` and
    read no body: where it is another worker's run, that one answers.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False
    query_key: bool = False
    error_object: ErrorObject = error_object
    wants: tuple[KeyScope, ...] = ("run",)
    of_run: bool = False


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: list[Route]) -> None:
        self.routes = routes
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, {})[route.method] = route
        for path, methods in by_path.items():
            if "{" in path:
                pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
                self._patterns.append((re.compile(pattern), methods))
            else:
                self._exact[path] = methods

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and its path parameters; raise :class:`NotFound` or :class:`MethodNotAllowed`."""
        exact = self._exact.get(path)
        if exact is not None and method in exact:
            return exact[method], {}
        allowed: set[str] = set()
        for methods, params in self._matches(path):
            route = methods.get("GET" if method == "HEAD" else method)
            if route is not None:
                return route, params
            allowed |= methods.keys()
        if allowed:
            raise MethodNotAllowed(f"{path} takes {', '.join(sorted(allowed))}, not {method}", allow=sorted(allowed))
        raise NotFound(f"nothing is at {path}; /docs lists what is")

    def _matches(self, path: str) -> Iterator[tuple[dict[str, Route], dict[str, str]]]:
        exact = self._exact.get(path)
        if exact is not None:
            yield exact, {}
        for pattern, methods in self._patterns:
            if match := pattern.fullmatch(path):
                yield methods, match.groupdict()
