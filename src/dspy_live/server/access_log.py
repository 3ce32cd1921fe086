"""One line for each request, through the logger ``dspy_live.access``."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.log_fields import log_fields

if TYPE_CHECKING:
    from dspy_live.server.transport.http import Request

log = logging.getLogger("dspy_live.access")

_LEFT = 499
_PROBES = "/health/"


class AccessLog:
    """Logs requests and WebSockets when they are over.

    Args:
        rate: the share of requests that are logged, over 0 and at most 1. Those that failed with 5xx are logged all.

    The address is the path alone: a query string may hold a key. Probes of ``/health`` are logged when they fail.
    """

    def __init__(self, rate: float = 1.0) -> None:
        if not 0 < rate <= 1:
            raise ConfigurationError(f"the access log's rate must be over 0 and at most 1; got {rate!r}")
        self.rate = rate
        if log.level == logging.NOTSET:
            log.setLevel(logging.INFO)  # the level of all logs may be WARNING

    def request(self, request: Request) -> None:
        """Log an HTTP request that is over."""
        status = request.status or _LEFT
        if not self._wanted(request.scope, status):
            return
        totals = request.totals
        more: dict[str, Any] = {"bytes": request.sent, "tokens": totals.usage()["total_tokens"] if totals else 0}
        if request.with_run:
            more = {"program": request.program, "run": request.run_id, **more}
        _write(request.scope, request.scope["method"], status, request.born, key=request.key, **more)

    def socket(self, scope: Scope, status: int, key: str, born: float) -> None:
        """Log a WebSocket that is closed, or was refused."""
        if self._wanted(scope, status):
            _write(scope, "WEBSOCKET", status, born, key=key)

    def _wanted(self, scope: Scope, status: int) -> bool:
        if status >= 500:
            return True
        if _PROBES in scope["path"]:
            return False
        return self.rate >= 1 or random.random() < self.rate


def _write(scope: Scope, method: str, status: int, born: float, **more: Any) -> None:
    path, client = scope["path"], scope.get("client")
    duration = round((time.perf_counter() - born) * 1000, 3)
    fields = {"method": method, "path": path, "status": status, "duration_ms": duration}
    fields |= {"client": client[0] if client else "", **more}
    log.info("%s %s %d in %.1f ms", method, path, status, duration, extra=log_fields("request", plain=True, **fields))
