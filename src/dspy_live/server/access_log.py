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
        scope = request.scope
        if not self._wanted(scope, status):
            return
        totals = request.totals
        fields = _fields(scope, scope["method"], status, request.born, request.key)
        if request.with_run:
            fields["program"] = request.program
            fields["run"] = request.run_id
        fields["bytes"] = request.sent
        fields["tokens"] = totals.total_tokens if totals is not None else 0
        _write(fields, request.program)

    def socket(self, scope: Scope, status: int, key: str, born: float) -> None:
        """Log a WebSocket that is closed, or was refused."""
        if self._wanted(scope, status):
            _write(_fields(scope, "WEBSOCKET", status, born, key))

    def _wanted(self, scope: Scope, status: int) -> bool:
        if status >= 500:
            return True
        if _PROBES in scope["path"]:
            return False
        return self.rate >= 1 or random.random() < self.rate


def _fields(scope: Scope, method: str, status: int, born: float, key: str) -> dict[str, Any]:
    client = scope.get("client")
    return {
        "method": method,
        "path": scope["path"],
        "status": status,
        "duration_ms": round((time.perf_counter() - born) * 1000, 3),
        "client": client[0] if client else "",
        "key": key,
    }


_LINE = "%s %s %d in %.1f ms"


def _write(fields: dict[str, Any], program: str = "") -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    # The other texts are of our own making.
    texts = (fields["method"], fields["path"], fields["client"], fields["key"], program)
    if write_plain(log, logging.INFO, "request", fields, texts):
        return
    args = (fields["method"], fields["path"], fields["status"], fields["duration_ms"])
    extra = log_fields("request", plain=True, **fields)
    if logging.getLogRecordFactory() is logging.LogRecord:
        log.handle(_record(args, extra))
    else:
        log.info(_LINE, *args, extra=extra)


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
    line = _write.__code__.co_firstlineno
    return vars(logging.LogRecord(log.name, logging.INFO, __file__, line, _LINE, (), None, _write.__name__))
