"""Small pieces of syntax: a call awaited, renamed, put in parentheses."""

from __future__ import annotations

import libcst as cst

from dspy_live.assistant.convert.source import Source


def twin_name(function: str) -> str:
    """Return the name of a function's asynchronous twin."""
    return "aforward" if function == "forward" else f"{function}_async"


def awaited(call: cst.Call) -> cst.Await:
    return cst.Await(expression=call.with_changes(lpar=[], rpar=[]), lpar=call.lpar, rpar=call.rpar)


def method_of(call: cst.Call, name: str) -> cst.Call:
    """``x(…)`` becomes ``x.name(…)``."""
    return call.with_changes(func=cst.Attribute(in_parentheses(call.func), cst.Name(name)))


def renamed(call: cst.Call, name: str) -> cst.Call:
    """``x.old(…)`` becomes ``x.name(…)``, ``old(…)`` becomes ``name(…)``."""
    if isinstance(call.func, cst.Attribute):
        return call.with_changes(func=call.func.with_changes(attr=cst.Name(name)))
    return call.with_changes(func=cst.Name(name))


def awaited_program(source: Source, call: cst.Call) -> cst.BaseExpression | None:
    """Return ``x`` of ``x.acall(…)`` and of ``dspy_live.asyncify(x)(…)``."""
    if isinstance(call.func, cst.Attribute) and call.func.attr.value == "acall":
        return call.func.value
    if isinstance(call.func, cst.Call) and source.imports.qualified(call.func.func) == "dspy_live.asyncify":
        return call.func.args[0].value if call.func.args else None
    return None


def last_attribute(node: cst.BaseExpression) -> str:
    return node.attr.value if isinstance(node, cst.Attribute) else ""


def in_parentheses(node: cst.BaseExpression) -> cst.BaseExpression:
    if isinstance(node, cst.Await) and not node.lpar:
        return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    return node
