"""Adds imports where ruff and isort would place them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert.names import dotted

_IMPORT = m.SimpleStatementLine(body=[m.Import() | m.ImportFrom()])
_BLANK = cst.EmptyLine(indent=False)


def add_imports(module: cst.Module, names: Sequence[str]) -> cst.Module:
    """Add ``import name`` for each name that the module does not import yet, in its place by ruff's order.

    ``dspy_live`` goes where ``dspy`` is imported: what stands before that may set variables that DSPy reads.
    """
    present = {name for node in module.body for name in _imported(node)}
    for name in sorted(set(names) - present):
        module = _added(module, name)
    return module


def _imported(node: cst.CSTNode) -> list[str]:
    """The modules that a statement imports under their own names."""
    if not isinstance(node, cst.SimpleStatementLine):
        return []
    found = [small for small in node.body if isinstance(small, cst.Import)]
    return [dotted(alias.name) or "" for small in found for alias in small.names if alias.asname is None]


def _added(module: cst.Module, name: str) -> cst.Module:
    body = list(module.body)
    start, end = _block(body, name)
    at, alone = _place(body[start:end], name)
    new = cst.SimpleStatementLine([cst.Import([cst.ImportAlias(cst.Name(name))])])
    index = start + at
    if start == end:  # no import at all: after the docstring, apart from what follows
        new = new.with_changes(leading_lines=[_BLANK] if index else [])
        return module.with_changes(body=[*body[:index], new, *_apart(body[index:])])
    if at == end - start:  # after the last one
        return module.with_changes(body=[*body[:index], _apart([new])[0] if alone else new, *body[index:]])
    following = body[index]
    assert isinstance(following, cst.SimpleStatementLine)
    if not alone and _section(_first(following)) > _section(name):  # the last one of its section
        return module.with_changes(body=[*body[:index], new, *body[index:]])
    new = new.with_changes(leading_lines=following.leading_lines if _begins_section(body[start:end], at) else [])
    if new.leading_lines or index == 0 or _begins_section(body[start:end], at):
        following = following.with_changes(leading_lines=[_BLANK] if alone else [])
    elif alone and not following.leading_lines:
        following = following.with_changes(leading_lines=[_BLANK])
    return module.with_changes(body=[*body[:index], new, following, *body[index + 1 :]])


def _apart(nodes: Sequence[cst.CSTNode]) -> list[cst.BaseStatement]:
    """Return statements with a blank line before the first."""
    found: list[cst.BaseStatement] = [node for node in nodes if isinstance(node, cst.BaseStatement)]
    if found and not getattr(found[0], "leading_lines", None):
        found[0] = found[0].with_changes(leading_lines=[_BLANK])
    return found


def _block(body: Sequence[cst.CSTNode], name: str) -> tuple[int, int]:
    """Return the statements of the imports that the new one joins, as (first, behind the last)."""
    blocks: list[tuple[int, int]] = []
    for index, node in enumerate(body):
        if not m.matches(node, _IMPORT):
            continue
        if blocks and blocks[-1][1] == index:
            blocks[-1] = (blocks[-1][0], index + 1)
        else:
            blocks.append((index, index + 1))
    docstring = int(bool(body) and m.matches(body[0], m.SimpleStatementLine(body=[m.Expr(m.SimpleString())])))
    early = [block for block in blocks if block[0] <= docstring]
    if name == "dspy_live":
        early = [block for block in blocks if any(_first(node) == "dspy" for node in body[slice(*block)])] or early
    return early[0] if early else (docstring, docstring)


def _place(block: Sequence[cst.CSTNode], name: str) -> tuple[int, bool]:
    """Return where in a block the import goes, and whether it makes a section of its own there."""
    wanted = _section(name)
    beside = next((i for i, node in enumerate(block) if name == "dspy_live" and "dspy" in _imported(node)), None)
    if beside is not None and not _in_order(block):
        return beside + 1, False
    for index, node in enumerate(block):
        section = _section(_first(node))
        if section > wanted:
            return index, not any(_section(_first(each)) == wanted for each in block)
        plain = not isinstance(cst.ensure_type(node, cst.SimpleStatementLine).body[0], cst.ImportFrom)
        if section == wanted and (not plain or _first(node, whole=True) > name):
            return index, False
    return len(block), not any(_section(_first(each)) == wanted for each in block)


def _in_order(block: Sequence[cst.CSTNode]) -> bool:
    """Tell whether the statements of a block stand as ruff sorts them; where they don't, dspy_live goes beside dspy."""
    keys = [
        (
            _section(_first(node)),
            isinstance(cst.ensure_type(node, cst.SimpleStatementLine).body[0], cst.ImportFrom),
            _first(node, whole=True),
        )
        for node in block
    ]
    return keys == sorted(keys)


def _begins_section(block: Sequence[cst.CSTNode], at: int) -> bool:
    """Tell whether a statement of a block is the first of its section."""
    return at == 0 or _section(_first(block[at - 1])) != _section(_first(block[at]))


def _first(node: cst.CSTNode, *, whole: bool = False) -> str:
    """Return the first part of what a statement imports, or with ``whole`` all of the name."""
    small = cst.ensure_type(node, cst.SimpleStatementLine).body[0]
    if isinstance(small, cst.ImportFrom):
        if small.relative:
            return "."
        name = dotted(small.module) or "" if small.module is not None else ""
    elif isinstance(small, cst.Import):
        name = dotted(small.names[0].name) or ""
    else:
        return ""
    return name if whole else name.partition(".")[0]


def _section(first: str) -> int:
    """Return the section of a module: ``__future__``, standard library, third parties, the package's own."""
    if first == "__future__":
        return 0
    if first in sys.stdlib_module_names:
        return 1
    return 3 if first == "." else 2
