"""One line for each request, through the logger ``dspy_live.access``."""

from __future__ import annotations

import logging
import random
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.console import write_plain
from dspy_live.server.log_fields import log_fields
from dspy_live.server.runs.totals import milliseconds_since

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
        totals = request.totals
        more: dict[str, Any] = {"program": request.program, "run": request.run_id} if request.with_run else {}
        more["bytes"] = request.sent
        more["tokens"] = totals.total_tokens if totals is not None else 0
        scope = request.scope
        self._write(scope, scope["method"], request.status or _LEFT, request.born, request.key, more, request.program)

    def socket(self, scope: Scope, status: int, key: str, born: float) -> None:
        """Log a WebSocket that is closed, or was refused."""
        self._write(scope, "WEBSOCKET", status, born, key, {})

    def _write(
        self, scope: Scope, method: str, status: int, born: float, key: str, more: dict[str, Any], program: str = ""
    ) -> None:
        path = scope["path"]
        if status < 500 and (_PROBES in path or (self.rate < 1 and random.random() >= self.rate)):
            return
        if not log.isEnabledFor(logging.INFO):
            return
        duration = milliseconds_since(born)
        client = scope.get("client")
        address = client[0] if client else ""
        fields = {
            "method": method, "path": path, "status": status, "duration_ms": duration, "client": address, "key": key,
            **more,
        }  # fmt: skip
        # The other texts are of our own making.
        if write_plain(log, logging.INFO, "request", fields, (method, path, address, key, program)):
            return
        args = (method, path, status, duration)
        extra = log_fields("request", plain=True, **fields)
        if logging.getLogRecordFactory() is logging.LogRecord:
            log.handle(_record(args, extra))
        else:
            log.info(_LINE, *args, extra=extra)


_LINE = "%s %s %d in %.1f ms"


def _record(args: tuple[Any, ...], extra: dict[str, Any]) -> logging.LogRecord:
    """Return the record as ``log.info`` makes it, in a quarter of its time: the line of code that logs is this one."""
    like = _first_record(threading.get_ident())
    now = time.time()
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(
        like,
        args=args,
        created=now,
        msecs=now % 1 * 1000 // 1,
        relativeCreated=like["relativeCreated"] + (now - like["created"]) * 1000,
        **extra,
    )
    return record


@lru_cache(maxsize=16)
def _first_record(thread: int) -> dict[str, Any]:
    """Return what all records of a server's thread have in common; made by that thread."""
    line = AccessLog._write.__code__.co_firstlineno
    return vars(logging.LogRecord(log.name, logging.INFO, __file__, line, _LINE, (), None, AccessLog._write.__name__))
