"""Reasons against making a function asynchronous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.names import dotted


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason that a function can't be made asynchronous safely."""

    text: str
    line: int = 0


def obstacles_of(function: cst.FunctionDef) -> list[Obstacle]:
    """Return what stands against an asynchronous twin of a function, its body's calls aside."""
    found = [
        Obstacle(f"it is decorated with @{cst.Module([]).code_for_node(decorator.decorator)}, made for functions")
        for decorator in function.decorators
        if _decorator_name(decorator) not in known.SAFE_DECORATORS
    ]
    if yields(function.body):
        found.append(Obstacle("it is a generator"))
    return found


def _decorator_name(decorator: cst.Decorator) -> str:
    node = decorator.decorator
    return dotted(node.func if isinstance(node, cst.Call) else node) or ""


def yields(body: cst.CSTNode) -> bool:
    """Tell whether a function of this body is a generator."""
    finder = _Yields()
    body.visit(finder)
    return finder.found


class _Yields(cst.CSTVisitor):
    found = False

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        return False

    def visit_Lambda(self, node: cst.Lambda) -> bool:
        return False

    def visit_Yield(self, node: cst.Yield) -> None:
        self.found = True


def explain(obstacles: Sequence[Obstacle]) -> str:
    """Return the obstacles as a piece of a sentence."""
    return "; ".join(dict.fromkeys(f"{o.text} (line {o.line})" if o.line else o.text for o in obstacles))
