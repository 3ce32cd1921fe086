"""Where a user's file stands: in a package, whose files import each other, or by itself."""

from __future__ import annotations

import re
from pathlib import Path

_RELATIVE = re.compile(r"^[ \t]*from[ \t]+(\.+)", re.MULTILINE)
_ABSOLUTE = re.compile(r"^(?:from|import)[ \t]+(\w+)", re.MULTILINE)


def package_root(folder: Path) -> Path:
    """Return the folder from which a package is imported: the first one above without an ``__init__.py``."""
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def package_of(folder: Path, source: str) -> tuple[Path, str]:
    """Return the folder that a file's package is imported from, and the package's name.

    A file with relative imports belongs to a package though no ``__init__.py`` says so. One that imports its neighbours
    by their plain names is run as a script, and has no package: the name is empty and the folder its own.
    """
    folder = folder.resolve()
    dots = max((len(found) for found in _RELATIVE.findall(source)), default=0)
    root = package_root(folder)
    if dots == 0:
        alone = any((folder / f"{name}.py").is_file() for name in _ABSOLUTE.findall(source))
        if root == folder or alone:
            return folder, ""
    for _ in range(dots):
        if folder.parent != folder and len(folder.parts) - len(root.parts) < dots:
            root = root.parent
    return root, ".".join(folder.relative_to(root).parts)
