"""``dspy-live completion``: the script by which a shell completes commands, flags, their values and files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from dspy_live.core.errors import ConfigurationError

Shell = Literal["bash", "zsh", "fish"]
# zsh calls the function that is named as the file.
_PLACES: dict[Shell, str] = {
    "bash": "~/.local/share/bash-completion/completions/dspy-live",
    "zsh": "~/.zsh/completions/_cyclopts_dspy-live",
    "fish": "~/.config/fish/completions/dspy-live.fish",
}
_AFTER: dict[Shell, str] = {
    "bash": "open a new shell; where there is no package bash-completion, add to ~/.bashrc:  source {path}",
    "zsh": "add to ~/.zshrc, before compinit:  fpath=({folder} $fpath); autoload -U compinit; compinit",
    "fish": "open a new shell",
}


def completion(shell: Shell | None = None, /, *, install: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print the script by which a shell completes dspy-live, or install it. It is to be made anew after an upgrade.

    Args:
        shell: bash, zsh or fish; the one that SHELL names by default.
        install: write it where the shell looks for such scripts, and say what else is to be done.
    """
    chosen = shell or _own_shell()
    script = completion_script(chosen)
    if not install:
        print(script, end="")
        return 0
    path = Path(_PLACES[chosen]).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, "utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be written: {exc.strerror}") from None
    print(f"wrote {path}; {_AFTER[chosen].format(path=path, folder=path.parent)}")
    return 0


def completion_script(shell: Shell) -> str:
    """Return the script; where the command line takes a target, files are completed."""
    from dspy_live.cli.app import make_app

    script = make_app().generate_completion(prog_name="dspy-live", shell=shell)
    if shell == "bash":
        # Where there is nothing else to complete, a target is meant.
        script = script.replace("complete -F _dspy_live ", "complete -o default -F _dspy_live ")
    if shell == "zsh":
        script = re.sub(r"^( *'[*\d]+:file\.py[^\n]*[^:\n])' \\$", r"\1:_files' \\", script, flags=re.MULTILINE)
    return script if script.endswith("\n") else script + "\n"


def _own_shell() -> Shell:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in _PLACES:
        raise ConfigurationError(f"name the shell, {', '.join(_PLACES)}; SHELL is {name or 'not set'!r}")
    return name
