"""The page on what of DSPy is used names every import of something that is not public, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/dspy_live"
PAGE = (ROOT / "docs/compatibility.md").read_text()
PUBLIC = ("dspy.lm15", "dspy.streaming", "dspy.utils.exceptions")
# What the seam and what is not public may be imported by: one file, and those that read the format of fields.
ELSEWHERE = {
    "assistant/sandbox.py",
    "programs/fields/formats.py",
    "programs/fields/live_adapter.py",
    "programs/run/schema.py",
    "programs/run/usage_tracker.py",
}


def imports() -> dict[tuple[str, str], set[str]]:
    """Module and name of each import from inside of DSPy, with the files that have it."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dspy."):
                for name in node.names:
                    found.setdefault((node.module or "", name.name), set()).add(path.relative_to(SOURCE).as_posix())
    return {key: files for key, files in found.items() if key[0] not in PUBLIC}


def listed() -> str:
    return PAGE.partition("## Names that are not DSPy's public ones")[2].partition("\n## ")[0]


def test_every_name_is_on_the_page() -> None:
    words = set(re.findall(r"`([^`]+)`", listed()))
    for module, name in imports():
        if f"{module}.{name}" in words:
            continue  # a module itself
        assert module in words or module in ("dspy.clients", "dspy.utils"), f"{module} is not on the page"
        assert name in words or name in ("base_lm", "callback", "execution", "model_metadata"), f"{module}.{name}"


def test_the_page_names_nothing_that_is_not_used() -> None:
    source = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    table = [line for line in listed().splitlines() if line.startswith("| `dspy.")]
    assert len(table) >= 10
    for line in table:
        for word in re.findall(r"`([^`]+)`", line.rpartition("|")[0].rpartition("|")[0]):
            assert word.rpartition(".")[2] in source, f"{word} is no longer used"


def test_what_is_not_public_is_imported_in_one_file() -> None:
    for (module, name), files in imports().items():
        assert files <= ELSEWHERE | {"programs/internals.py"}, f"{module}.{name} belongs in programs/internals.py"
