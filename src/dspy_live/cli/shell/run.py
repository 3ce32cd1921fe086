"""The shell's commands that run things: the loaded program, a server, the cache."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, TextIO

from dspy_live.cli.flags import ProgramFlags
from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.runtime.scope import Scope


def run_program(target: str, words: str, flags: ProgramFlags, out: TextIO, *, stream: bool) -> None:
    """Run a program once, in this process; Ctrl-C cancels it, its LM call included.

    Args:
        target: as on the command line.
        words: its inputs: a text for its one input, or ``name=value`` for each.
    """
    from dspy_live.cli.input.inputs import read_inputs
    from dspy_live.cli.open_program import open_program
    from dspy_live.cli.screens.run_screens import Screen, Terminal, print_outputs
    from dspy_live.cli.single_run import run_once

    program = open_program(target, flags)
    text, named = split_inputs(words)
    inputs = read_inputs(program.schema, text, named)
    print(f"[{program.lm.label}]", file=out)

    def screen(scope: Scope) -> Screen:
        return Terminal(scope, program.schema, out, out) if stream else Screen(scope)

    result = run_once(program, inputs, screen, timeout=flags.timeout, stream=stream)
    if not stream:
        print_outputs(result.outputs, out)


def split_inputs(words: str) -> tuple[str | None, dict[str, str]]:
    """Split what follows ``/run``: ``name=value`` pairs, where it begins with one, else one text."""
    if not re.match(r"[A-Za-z_]\w*=", words):
        return words.strip() or None, {}
    parts = re.split(r"(?:^|\s)([A-Za-z_]\w*)=", words)
    return None, {name: value.strip().strip("\"'") for name, value in zip(parts[1::2], parts[2::2], strict=True)}


def serve_program(target: str, port: int, flags: ProgramFlags, out: TextIO) -> None:
    """Serve a program in a process of its own until Ctrl-C, which ends the server and not the shell."""
    command = [sys.executable, "-m", "dspy_live", "serve", target, "--port", str(port)]
    for name in ("lm", "api_base", "api_key", "config"):
        if value := getattr(flags, name):
            command += [f"--{name.replace('_', '-')}", str(value)]
    if flags.sim:
        command.append("--sim")
    print(f"http://127.0.0.1:{port} until Ctrl-C", file=out, flush=True)
    server = subprocess.Popen(command)
    try:
        status = server.wait()
    except KeyboardInterrupt:
        # The terminal has sent the signal to the server too; in a pipe it has not.
        server.send_signal(signal.SIGINT)
        try:
            server.wait(40)
        except subprocess.TimeoutExpired:
            server.kill()
        print("stopped", file=out)
        return
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    if status:
        raise ConfigurationError(f"the server ended with status {status}")


def cache_lines() -> list[str]:
    """Return the cache's statistics, one on each line."""
    from dspy_live import cache

    return [f"{name:<20}{value}" for name, value in cache.stats().items()]


def clear_cache() -> str:
    """Delete every cached answer, and say so."""
    from dspy_live import cache

    cache.clear()
    return "the cache is empty"
