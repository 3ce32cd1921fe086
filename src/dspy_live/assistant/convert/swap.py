"""Puts dspy-live's names where DSPy's stand: ``dspy.LM(…)`` becomes ``dspy_live.LM(…)``."""

from __future__ import annotations

import libcst as cst

from dspy_live.assistant.convert.importing import add_imports
from dspy_live.assistant.convert.names import Imports
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import Source


def swap(module: cst.Module, imports: Imports, names: frozenset[str]) -> tuple[cst.Module, set[str]]:
    """Replace calls of DSPy's ``names`` by dspy-live's; return the module and the names that were found."""
    transformer = _Swap(imports, names)
    changed = module.visit(transformer)
    assert isinstance(changed, cst.Module)
    if transformer.found:
        changed = add_imports(changed, ["dspy_live"])
    return changed, transformer.found


def uses(source: Source, qualified: str) -> bool:
    """Tell whether a file calls the thing of that full name."""
    finder = _Uses(source.imports, qualified)
    source.module.visit(finder)
    return finder.found


def with_live_lm(text: str, notes: Notes) -> str:
    """Return the source with its LMs made by ``dspy_live.LM``, a ``dspy.LM`` on dspy-live's engine."""
    source = Source(text, first_pass=False)
    module, found = swap(source.module, source.imports, frozenset({"LM"}))
    if found:
        notes.add(
            "changed",
            "dspy.LM is dspy_live.LM now: the same LM, metered, cancelled at once, with no cap on connections.",
        )
    return module.code


class _Uses(cst.CSTVisitor):
    def __init__(self, imports: Imports, qualified: str) -> None:
        self.imports, self.qualified, self.found = imports, qualified, False

    def visit_Call(self, node: cst.Call) -> None:
        self.found = self.found or self.imports.qualified(node.func) == self.qualified


class _Swap(cst.CSTTransformer):
    def __init__(self, imports: Imports, names: frozenset[str]) -> None:
        super().__init__()
        self.imports, self.names = imports, names
        self.found: set[str] = set()

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        qualified = self.imports.qualified(original_node.func) or ""
        name = qualified.rpartition(".")[2]
        if not qualified.startswith("dspy.") or name not in self.names:
            return updated_node
        self.found.add(name)
        return updated_node.with_changes(func=cst.Attribute(cst.Name("dspy_live"), cst.Name(name)))
