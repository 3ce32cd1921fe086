"""Files of web frameworks: which functions may be coroutine functions, and which may not."""

from __future__ import annotations

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert.awaiting import Plan
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import Source
from dspy_live.assistant.convert.twins import Edits, make_in_place

_VERBS = frozenset({"route", "get", "post", "put", "patch", "delete"})
_ROUTE = m.Decorator(m.Call(func=m.Attribute(attr=m.Name(value=m.MatchIfTrue(lambda name: name in _VERBS)))))


def framework_of(source: Source) -> str:
    """Return the framework that a file imports: ``"streamlit"``, ``"gradio"``, ``"flask"`` or nothing."""
    imported = {name.partition(".")[0] for name in source.imports.table.values()}
    return next((name for name in ("streamlit", "gradio", "flask") if name in imported), "")


def app_of(source: Source) -> str:
    """Return the name of the file's ``FastAPI()`` application; empty where it has none."""
    for statement in source.module.body:
        for node in m.findall(statement, m.Assign(targets=[m.AssignTarget(target=m.Name())], value=m.Call())):
            assign = cst.ensure_type(node, cst.Assign)
            if source.imports.qualified(cst.ensure_type(assign.value, cst.Call).func) == "fastapi.FastAPI":
                return cst.ensure_type(assign.targets[0].target, cst.Name).value
    return ""


def is_view(function: cst.FunctionDef) -> bool:
    """Tell whether a function is decorated as the answer to a route, ``@app.route("/")`` or ``@app.get("/")``."""
    return any(m.matches(each, _ROUTE) for each in function.decorators)


def note_views(source: Source, notes: Notes) -> None:
    """Say of Flask's views that they stay as they are, and what Flask can't do."""
    for name, function in source.functions.items():
        if is_view(function):
            notes.add(
                "left",
                f"{name}() is a Flask view and stays synchronous: Flask answers each request in a thread of its own, "
                "and can neither await a program nor end its run when the client leaves. `convert fastapi` writes "
                "routes that do.",
                source.line(function),
            )


def handlers(source: Source) -> dict[str, cst.FunctionDef]:
    """Return the functions that are handed to Gradio and that nothing in the file calls by itself."""
    found: dict[str, cst.FunctionDef] = {}
    handed = {
        cst.ensure_type(arg.value, cst.Name).value
        for call in m.findall(source.module, m.Call())
        if isinstance(call, cst.Call) and _takes_handlers(source, call)
        for arg in call.args
        if isinstance(arg.value, cst.Name)
    }
    for name, function in source.functions.items():
        called = m.findall(source.module, m.Call(func=m.Name(name)))
        if name in handed and not called and function.asynchronous is None and not function.decorators:
            found[name] = function
    return found


def _takes_handlers(source: Source, call: cst.Call) -> bool:
    if (source.imports.qualified(call.func) or "").startswith("gradio."):
        return True
    events = ("click", "submit", "change", "input", "load", "then", "select", "upload")
    return isinstance(call.func, cst.Attribute) and call.func.attr.value in events


def make_handlers_async(plan: Plan, edits: Edits) -> None:
    """Make the handlers of Gradio that wait for a program coroutine functions, which Gradio awaits."""
    for name, function in handlers(plan.source).items():
        trial = plan.try_body(function, None)
        if trial.awaited and not plan.obstacles(function, None):
            edits.instead[function] = make_in_place(plan, function, None)
            plan.notes.add("changed", f"{name}() is asynchronous now: Gradio awaits it.", plan.source.line(function))
