"""What a file imports from its own project and from libraries: whether a call of it may wait."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Literal

from dspy_live.assistant.packages import package_root

Place = Literal["project", "library", "quiet"]
"""The origin of an imported name: a file of the project, a library, or code that never waits."""

QUIET = frozenset(
    {"numpy", "pandas", "pydantic", "msgspec", "rich", "tqdm", "tiktoken", "sklearn", "scipy", "loguru", "structlog"}
    | {"yaml", "orjson", "ujson", "jinja2", "dateutil", "dotenv", "regex", "rapidfuzz", "typing_extensions", "attr"}
    | {"fastapi", "starlette", "flask", "streamlit", "gradio", "pytest", "click", "typer", "bs4", "markdown"}
)
"""Libraries whose calls compute, or that are called once at the start."""

_QUIET_STANDARD = frozenset(
    {"__future__", "abc", "ast", "base64", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime"}
    | {"decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "html", "inspect", "itertools"}
    | {"json", "logging", "math", "operator", "os", "pathlib", "random", "re", "statistics", "string", "textwrap"}
    | {"types", "typing", "unicodedata", "uuid", "warnings", "zoneinfo", "sys"}
)

_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import|import[ \t]+([\w., \t]+))", re.MULTILINE)
_PROGRAM = re.compile(r"^class[ \t]+(\w+)\([^)]*\b(?:dspy\.)?Module\b[^)]*\):", re.MULTILINE)


class Elsewhere:
    """The other files of a project.

    Args:
        folder: the folder of the file that imports; ``None`` where it is not known: then relative imports alone
            are taken for the project's.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._texts: dict[str, str | None] = {}

    def place(self, qualified: str) -> Place:
        """Return where an imported name comes from: ``"numpy.array"``, ``".rag.RAG"``, ``"helpers.search"``."""
        first = qualified.partition(".")[0]
        if not qualified.startswith("."):
            if first in sys.stdlib_module_names or first in ("dspy", "dspy_live"):
                return "quiet"
            if self._file(qualified) is None:
                return "quiet" if first in QUIET else "library"
        return "project" if self._may_wait(qualified) else "quiet"

    def is_program(self, qualified: str) -> bool:
        """Tell whether a name of the project is a class that inherits from ``dspy.Module`` by its own file."""
        text = self._text(qualified)
        return text is not None and qualified.rpartition(".")[2] in _PROGRAM.findall(text)

    def _may_wait(self, qualified: str) -> bool:
        """A file waits for nothing when all that it imports is known to be quiet."""
        text = self._text(qualified)
        if text is None:
            return True
        imported = [found for match in _IMPORT.findall(text) for found in (match[0], *match[1].split(",")) if found]
        firsts = {name.strip().split(" ")[0].partition(".")[0] for name in imported}
        return not firsts <= _QUIET_STANDARD | QUIET

    def _text(self, qualified: str) -> str | None:
        file = self._file(qualified)
        if file is None:
            return None
        key = str(file)
        if key not in self._texts:
            try:
                self._texts[key] = file.read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError):
                self._texts[key] = None
        return self._texts[key]

    def _file(self, qualified: str) -> Path | None:
        """Return the file of the project that defines a name: the longest part of it that is a module."""
        if self._folder is None:
            return None
        dots = len(qualified) - len(qualified.lstrip("."))
        parts = qualified.lstrip(".").split(".")
        if dots:
            start = self._folder
            for _ in range(dots - 1):
                start = start.parent
            return _module(start, parts)
        return _module(self._folder, parts) or _module(package_root(self._folder), parts)


def _module(start: Path, parts: list[str]) -> Path | None:
    for count in range(len(parts), 0, -1):
        place = start.joinpath(*parts[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None
