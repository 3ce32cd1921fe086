"""The meaning of a file's names: its imports, as one table."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known


def dotted(node: cst.BaseExpression) -> str | None:
    """Return ``"a.b.c"`` for a plain chain of names, ``None`` for anything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr.value}" if left else None
    return None


class Imports(cst.CSTVisitor):
    """The import table of a file; imports inside functions count for the whole file."""

    def __init__(self) -> None:
        self.table: dict[str, str] = {}
        self.star_of_dspy = False

    def visit_Import(self, node: cst.Import) -> None:
        for alias in node.names:
            name = dotted(alias.name) or ""
            if alias.asname is not None and isinstance(alias.asname.name, cst.Name):
                self.table[alias.asname.name.value] = name
            else:
                first = name.partition(".")[0]
                self.table[first] = first

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        module = "." * len(node.relative) + (dotted(node.module) or "" if node.module else "")
        if isinstance(node.names, cst.ImportStar):
            self.star_of_dspy = self.star_of_dspy or module == "dspy"
            return
        for alias in node.names:
            name = dotted(alias.name) or ""
            bound = alias.asname.name if alias.asname is not None else alias.name
            if isinstance(bound, cst.Name):
                self.table[bound.value] = f"{module}.{name}"

    def qualified(self, node: cst.BaseExpression) -> str | None:
        """Return the full name of an imported thing: ``P`` of ``from dspy import Predict as P`` is ``dspy.Predict``."""
        name = dotted(node)
        if name is None:
            return None
        first, dot, rest = name.partition(".")
        if first in self.table:
            return self.table[first] + dot + rest
        if self.star_of_dspy and first in known.NATIVE | known.SYNC_MODULES | known.BLOCKING | known.OPTIMISERS:
            return f"dspy.{name}"
        return None


def binds(statement: cst.CSTNode) -> set[str]:
    """Return the names that a statement binds in its own scope (not those inside defs and comprehensions)."""
    finder = _Bindings()
    statement.visit(finder)
    return finder.names


def reads(node: cst.CSTNode) -> set[str]:
    """Return every plain name that appears in a node, read or written; attributes do not count."""
    finder = _Reads()
    node.visit(finder)
    return finder.names


def free(node: cst.CSTNode) -> set[str]:
    """Return the names that a definition takes from outside: what it reads and does not bind itself."""
    if isinstance(node, cst.FunctionDef | cst.Lambda):
        params = _Params()
        node.params.visit(params)
        declared = {item.name.value for found in m.findall(node, m.Global()) for item in found.names}  # type: ignore[attr-defined]
        body = node.body
        inside = _free_in(body.body if isinstance(body, cst.BaseSuite) else [body])
        outside = reads(node.params)
        if isinstance(node, cst.FunctionDef):
            outside = outside.union(*(reads(decorator) for decorator in node.decorators))
            inside -= binds(body) - declared
        return (inside - params.names) | outside | declared
    if isinstance(node, cst.ClassDef):
        outside = set().union(*(reads(part) for part in [*node.decorators, *node.bases]))
        return outside | _free_in(node.body.body)
    finder = _Reads(split=True)
    node.visit(finder)
    return (finder.names - finder.bound).union(*(free(inner) for inner in finder.definitions))


def _free_in(nodes: Sequence[cst.CSTNode]) -> set[str]:
    return set().union(*(free(node) for node in nodes))


class _Params(cst.CSTVisitor):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Param(self, node: cst.Param) -> bool:
        self.names.add(node.name.value)
        return False


class _Bindings(cst.CSTVisitor):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def _target(self, node: cst.BaseExpression) -> None:
        if isinstance(node, cst.Name):
            self.names.add(node.value)
        elif isinstance(node, cst.Tuple | cst.List):
            for element in node.elements:
                self._target(element.value)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        self.names.add(node.name.value)
        return False

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:
        self.names.add(node.name.value)
        return False

    def visit_Lambda(self, node: cst.Lambda) -> bool:
        return False

    def visit_CompFor(self, node: cst.CompFor) -> bool:
        return False

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        self._target(node.target)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self._target(node.target)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self._target(node.target)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._target(node.target)

    def visit_For(self, node: cst.For) -> None:
        self._target(node.target)

    def visit_AsName(self, node: cst.AsName) -> None:
        self._target(node.name)

    def visit_Del(self, node: cst.Del) -> None:
        self._target(node.target)

    def visit_ImportAlias(self, node: cst.ImportAlias) -> bool:
        if node.asname is None:
            self.names.add((dotted(node.name) or "").partition(".")[0])
        return True


class _Reads(cst.CSTVisitor):
    """Collects names; with ``split``, definitions and comprehension variables apart."""

    def __init__(self, *, split: bool = False) -> None:
        self.names: set[str] = set()
        self.bound: set[str] = set()
        self.definitions: list[cst.CSTNode] = []
        self.split = split

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        if self.split:
            self.definitions.append(node)
        return not self.split

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:
        if self.split:
            self.definitions.append(node)
        return not self.split

    def visit_Lambda(self, node: cst.Lambda) -> bool:
        if self.split:
            self.definitions.append(node)
        return not self.split

    def visit_CompFor(self, node: cst.CompFor) -> None:
        self.bound |= reads(node.target)

    def visit_Name(self, node: cst.Name) -> None:
        self.names.add(node.value)

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        node.value.visit(self)
        return False

    def visit_Arg(self, node: cst.Arg) -> bool:
        node.value.visit(self)
        return False

    def visit_Param(self, node: cst.Param) -> bool:
        for part in (node.default, node.annotation):
            if part is not None:
                part.visit(self)
        return False
