"""Python, the packages, and the extras."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from dspy_live.cli.doctor.compiled_part import compiled_part
from dspy_live.cli.doctor.finding import Finding

_EXTRAS = {
    "shell": ("`shell` and `convert`", ("prompt_toolkit", "libcst", "pygments", "plotext")),
    "plot": ("`usage --png`", ("matplotlib",)),
    "redis": ("limits, budgets and caches that several servers share", ("redis",)),
    "postgres": ("a ledger in PostgreSQL", ("psycopg",)),
    "otel": ("traces", ("opentelemetry.sdk",)),
    "ray": ("`serve --on ray` and `batch --on ray`", ("ray",)),
}
"""What each extra is for, and its modules. ``needed`` extras are looked at more strictly."""


def installation(needed: set[str]) -> Iterator[Finding]:
    """Look at Python, the packages and the extras; ``needed`` names the extras that the configuration asks for."""
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    yield Finding("ok", "python", detail)
    yield Finding("ok", "dspy-live", version("dspy-live"))
    yield _dspy(version("dspy"))
    if sys.platform != "win32":
        found = find_spec("uvloop") is not None
        if found:
            yield Finding("ok", "uvloop", version("uvloop"))
        else:
            yield Finding("note", "uvloop", "not installed: servers are slower", "pip install uvloop")
    yield compiled_part()
    yield from _extras(needed)


def _dspy(found: str) -> Finding:
    if found.split(".")[:2] == ["3", "4"]:
        return Finding("ok", "dspy", found)
    return Finding(
        "bad", "dspy", f"{found}; this version of dspy-live is built for 3.4", "pip install 'dspy>=3.4,<3.5'"
    )


def _extras(needed: set[str]) -> Iterator[Finding]:
    missing = {name for name, (_, modules) in _EXTRAS.items() if not all(_there(module) for module in modules)}
    for name in _EXTRAS:
        if name not in missing:
            yield Finding("ok", name, "installed")
        elif name in needed:
            install = f"pip install 'dspy-live[{name}]'"
            yield Finding("bad", name, "not installed, and the configuration needs it", install)
    if spare := [f"{name} for {_EXTRAS[name][0]}" for name in _EXTRAS if name in missing - needed]:
        first = spare[0].partition(" ")[0]
        yield Finding(
            "ok",
            "extras",
            f"not installed, and not needed: {'; '.join(spare)}",
            f"pip install 'dspy-live[{first}]' and so on, when one is wanted",
        )


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, PackageNotFoundError):
        return False
