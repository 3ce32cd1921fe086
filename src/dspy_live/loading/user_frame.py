"""Find the line of the user's own code that an exception comes from."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from pathlib import Path

_OURS = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = tuple(
    sorted({_OURS, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))})
)


def user_line(exc: BaseException) -> str | None:
    """Return ``"qa.py:12: the line"`` of the innermost frame that belongs to no library.

    For a syntax error it is the line that does not parse. ``None`` when the exception never passed through the user's
    code. Paths below the working directory are shortened.
    """
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:
        text = exc.text or linecache.getline(exc.filename, exc.lineno)
        return _location(exc.filename, exc.lineno, text)
    for frame, number in reversed(list(traceback.walk_tb(exc.__traceback__))):
        path = frame.f_code.co_filename
        if not _is_library(path):
            return _location(path, number, linecache.getline(path, number))
    return None


def _is_library(path: str) -> bool:
    # Frozen and generated code has no file: <frozen importlib._bootstrap>, <string>.
    return path.startswith("<") or path.startswith(_LIBRARIES) or "site-packages" in path


def _location(path: str, number: int, text: str) -> str:
    try:
        path = str(Path(path).resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):
        pass
    return f"{path}:{number}: {text.strip()}" if text.strip() else f"{path}:{number}"
