"""``dspy-live init``: a new project that runs at once."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dspy_live.core.errors import ConfigurationError

_FILES = Path(__file__).resolve().parent.parent / "project_files"
_PLACES = {
    "program.py": "program.py",
    "dspy-live.toml": "dspy-live.toml",
    "test_program.py": "tests/test_program.py",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "env.example": ".env.example",
    "gitignore": ".gitignore",
}


_DEPLOY = ("dspy-live@.service", "haproxy.cfg", "kubernetes.yaml", "nginx.conf")
"""Files of the folder ``deploy`` that serve any project. The images of the others are built from a checkout."""


def init(
    folder: Path = Path(),
    /,
    *,
    name: str | None = None,
    deploy: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a new project: program, configuration with comments, test, README. It runs at once, without a key.

    Nothing is overwritten: where one of its files is there already, nothing is written at all.

    Args:
        folder: where to; it is made when it isn't there.
        name: the project's and the program's name; the folder's by default.
        deploy: write files for systemd, nginx, HAProxy and Kubernetes too, in the folder deploy.
    """
    words = re.findall(r"[a-z0-9]+", (name or folder.resolve().name).lower()) or ["program"]
    texts = project("-".join(words), "_".join(words))
    if deploy:
        texts |= {f"deploy/{file}": (_deploy_folder() / file).read_text("utf-8") for file in _DEPLOY}
    there = [path for path in texts if (folder / path).exists()]
    if there:
        raise ConfigurationError(
            f"{folder.resolve()} has {', '.join(there)} already, and nothing is overwritten; take another folder"
        )
    try:
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{folder} can't be written: {exc.strerror}") from None
    for path in texts:
        print(f"wrote {folder / path}")
    go = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    print(f"\nnow: {go}dspy-live serve   (the simulated LM answers until dspy-live.toml names one)")
    return 0


def project(name: str, program: str) -> dict[str, str]:
    """Return the texts of a new project by their paths.

    Args:
        name: the project's.
        program: the program's, in addresses.
    """
    texts = {place: (_FILES / f"{file}.template").read_text("utf-8") for file, place in _PLACES.items()}
    return {place: text.replace("@NAME@", name).replace("@PROGRAM@", program) for place, text in texts.items()}


def _deploy_folder() -> Path:
    """Return where the files for deployment are: in the installed package, or in the working copy."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "_deploy"
    return installed if installed.is_dir() else package.parents[1] / "deploy"
