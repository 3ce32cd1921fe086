"""Running real clients, each in an environment of its own that scripts/front_clients.sh makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_HOME = _ROOT / ".cache" / "front-clients"
_CLIENTS = Path(__file__).with_name("clients")
PATIENCE = 300
"""Seconds after which a client that hangs fails its test."""


@cache
def _made() -> Path:
    subprocess.run(["bash", str(_ROOT / "scripts" / "front_clients.sh")], check=True, timeout=900)
    return _HOME


def command(script: str, environment: str = "npm") -> list[str]:
    """The command that runs a client of ``clients/``: a module of Node, or a Python file in an environment."""
    home = _made()
    if script.endswith(".py"):
        return [str(home / environment / "bin" / "python"), str(_CLIENTS / script)]
    # Node looks for packages above the file that imports them.
    copy = home / "npm" / f"{os.getpid()}-{script}"
    shutil.copyfile(_CLIENTS / script, copy)
    return [str(home / "node" / "bin" / "node"), str(copy)]


def run(script: str, *arguments: str, environment: str = "npm") -> dict[str, Any]:
    """Run a client to its end and return the JSON object that it prints last."""
    made = command(script, environment)
    settings = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))}
    settings["NO_PROXY"] = settings["no_proxy"] = "127.0.0.1,localhost"
    try:
        done = subprocess.run(
            [*made, *arguments], capture_output=True, text=True, timeout=PATIENCE, env=settings, check=False
        )
    finally:
        if script.endswith(".mjs"):
            Path(made[1]).unlink()
    assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def npm_package(path: str) -> tuple[str, str]:
    """The command of Node and the path of a file in an npm package."""
    home = _made()
    return str(home / "node" / "bin" / "node"), str(home / "npm" / "node_modules" / path)
