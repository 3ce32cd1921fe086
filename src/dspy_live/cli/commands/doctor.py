"""``dspy-live doctor``: report the parts of this installation that are missing, and how to get them."""

from __future__ import annotations

import os
import platform
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from cyclopts import Parameter

from dspy_live.cli.flags import ProgramFlags
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.lm_settings import load_dotenv

_EXTRAS = {
    "shell": ("prompt_toolkit", "libcst", "pygments", "plotext"),
    "plot": ("matplotlib",),
    "redis": ("redis",),
    "postgres": ("psycopg",),
    "otel": ("opentelemetry.sdk",),
    "ray": ("ray",),
}


class Finding(NamedTuple):
    """One line of the report. Only ``"bad"`` makes the command fail."""

    state: Literal["ok", "note", "bad"]
    name: str
    detail: str


def doctor(
    target: str | None = None,
    /,
    *,
    port: int = 8000,
    json: Annotated[bool, Parameter(negative="")] = False,
    flags: ProgramFlags | None = None,
) -> int:
    """Look at this installation, its LM settings and, when one is named, a program.

    No LM is called. The exit status is 1 when something that is needed is missing.

    Args:
        target: a program to load as well.
        port: a port that must be free for a server.
        json: print the findings as JSON.
    """
    if not 0 <= port <= 65_535:
        raise ConfigurationError(f"a port is a number from 0 to 65535; got {port}")
    # The program's own settings may stand there too, such as where the cache is.
    dotenv = list(_dotenv())
    findings = [*dotenv, *_python(), *_extras(), *_cache(), _port(port), *_lm(target, flags or ProgramFlags())]
    if json:
        import orjson

        print(orjson.dumps([f._asdict() for f in findings]).decode())
    else:
        for f in findings:
            print(f"{f.state:4}  {f.name:<12}  {f.detail}")
    return 1 if any(f.state == "bad" for f in findings) else 0


def _python() -> Iterator[Finding]:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("ok" if sys.version_info >= (3, 11) else "bad", "python", detail)
    yield Finding("ok", "dspy-live", version("dspy-live"))
    yield _dspy(version("dspy"))
    if sys.platform != "win32":
        found = find_spec("uvloop") is not None
        yield Finding(
            "ok" if found else "note", "uvloop", version("uvloop") if found else "missing: servers are slower"
        )


def _dspy(found: str) -> Finding:
    if found.split(".")[:2] == ["3", "4"]:
        return Finding("ok", "dspy", found)
    return Finding("bad", "dspy", f"{found}; this version of dspy-live is built for 3.4: pip install 'dspy>=3.4,<3.5'")


def _extras() -> Iterator[Finding]:
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if not _there(name)]
        if missing:
            yield Finding("note", extra, f"not installed; pip install 'dspy-live[{extra}]' if you want it")
        else:
            yield Finding("ok", extra, "installed")


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, PackageNotFoundError):
        return False


def _dotenv() -> Iterator[Finding]:
    try:
        load_dotenv(Path(".env"), os.environ)
    except ConfigurationError as exc:
        yield Finding("bad", ".env", exc.message)


def _cache() -> Iterator[Finding]:
    folder = Path(os.environ.get("DSPY_CACHEDIR") or Path.home() / ".dspy_cache")
    try:
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        # Rights alone don't tell: root has all of them, on a file system that takes no files too.
        with tempfile.TemporaryFile(dir=nearest):
            yield Finding("ok", "cache", str(folder))
    except OSError as exc:
        yield Finding("bad", "cache", f"{folder} can't be written: {exc.strerror}; set DSPY_CACHEDIR")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            return Finding("note", "port", f"{port} can't be used: {exc.strerror}; serve --port takes another")
    return Finding("ok", "port", f"{port} is free")


def _lm(target: str | None, flags: ProgramFlags) -> Iterator[Finding]:
    from dspy_live.cli.open_program import open_program, settings_of

    try:
        if target is None:
            settings = settings_of(flags)
            if settings.model:
                yield Finding("ok", "lm", f"{settings.model} ({settings.source})")
            else:
                yield Finding("note", "lm", "none: commands use the simulated LM; set DSPY_LIVE_LM or give --lm")
            return
        program = open_program(target, flags)
    except ConfigurationError as exc:
        yield Finding("bad", "program" if target else "lm", exc.message.replace("\n", " "))
        return
    schema = program.schema
    inputs, outputs = (", ".join(f"{f.name}: {f.type}" for f in fields) for fields in (schema.inputs, schema.outputs))
    yield Finding("ok", "program", f"{program.loaded.name}: {inputs or 'any'} -> {outputs or 'any'}")
    yield Finding("note" if program.lm.simulated else "ok", "lm", program.lm.label)
