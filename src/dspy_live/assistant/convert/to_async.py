"""``convert async``: every module gets an ``aforward``, and the code that runs the program awaits it."""

from __future__ import annotations

from collections.abc import Mapping

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.awaiting import Plan, Special
from dspy_live.assistant.convert.elsewhere import Elsewhere
from dspy_live.assistant.convert.frameworks import framework_of, is_view, make_handlers_async, note_views
from dspy_live.assistant.convert.importing import add_imports
from dspy_live.assistant.convert.main_part import run_in_main, running_part
from dspy_live.assistant.convert.names import dotted, reads
from dspy_live.assistant.convert.obstacles import explain, obstacles_of
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import ClassFacts, Source
from dspy_live.assistant.convert.swap import uses, with_live_lm
from dspy_live.assistant.convert.twins import (
    Edits,
    in_existing_async,
    is_route,
    make_in_place,
    make_requested,
    make_twin,
)


def to_async(text: str, notes: Notes, elsewhere: Elsewhere | None = None) -> str:
    """Return the source with asynchronous programs.

    A class whose ``forward`` can't be awaited safely stays synchronous; its callers then await it
    through ``dspy_live.asyncify``, which runs it in a thread. Running it twice changes nothing more.
    """
    source = Source(text, _kept_sync(text, notes, elsewhere), will_convert=True, elsewhere=elsewhere)
    plan = Plan(source, notes)
    edits = Edits()
    _note_tools(plan)
    for facts in source.programs():
        _add_aforward(plan, edits, facts)
    framework = framework_of(source)
    in_existing_async(plan, edits)
    if framework == "flask":
        note_views(source, notes)
    elif framework == "gradio":
        make_handlers_async(plan, edits)
    elif framework == "streamlit":
        notes.add(
            "left",
            "Streamlit runs the script from top to bottom for each visitor, in a thread: what it runs stays "
            "synchronous. `convert streaming` shows the answer as it arrives.",
        )
    else:
        _routes(plan, edits)
    if framework != "streamlit":
        _library(plan, edits)
    make_requested(plan, edits)
    module = edits.apply(source.module)
    if plan.imports:
        module = add_imports(module, sorted(plan.imports))
    if framework == "streamlit":
        return with_live_lm(module.code, notes)
    return with_live_lm(run_asynchronously(module.code, notes, original=text, elsewhere=elsewhere), notes)


def run_asynchronously(
    text: str, notes: Notes, special: Special | None = None, *, original: str, elsewhere: Elsewhere | None = None
) -> str:
    """Return the source with its running part awaited; definitions are as they should be already.

    Args:
        text: the source, whose definitions may be changed already.
        notes: where remarks go.
        special: a conversion's own treatment of calls.
        original: the user's source, for line numbers.
        elsewhere: the other files of the project.
    """
    source = Source(text, first_pass=text == original, original=original, elsewhere=elsewhere)
    plan = Plan(source, notes, special)
    edits = Edits()
    module = source.module
    running = running_part(plan)
    if running is not None:
        module = run_in_main(plan, running, module)
    for name in plan.in_place:
        edits.instead[source.functions[name]] = make_in_place(plan, source.functions[name], None)
    if special is not None:
        in_existing_async(plan, edits)
    make_requested(plan, edits)
    module = edits.apply(module)
    return add_imports(module, sorted(plan.imports)).code if plan.imports else module.code


def _kept_sync(text: str, notes: Notes, elsewhere: Elsewhere | None) -> frozenset[str]:
    """Find the classes that can't be converted safely; one may make its subclasses so."""
    kept: frozenset[str] = frozenset()
    while True:
        source = Source(text, kept, will_convert=True, elsewhere=elsewhere)
        plan = Plan(source)
        found = dict(_refused(plan))
        if found.keys() <= kept:
            return kept
        for name, reason in found.items():
            if name not in kept:
                line = source.line(source.classes[name].methods["forward"])
                notes.add(
                    "left", f"{name}.forward() stays synchronous: {reason}. It is awaited through a thread.", line
                )
        kept |= found.keys()


def _refused(plan: Plan) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for facts in plan.source.programs():
        forward = facts.methods.get("forward")
        if forward is None or "aforward" in facts.methods or facts.name in plan.source.keep_sync:
            continue
        if forward.asynchronous is not None:
            found.append(
                (facts.name, "it is a coroutine function already, which DSPy does not await; call it aforward")
            )
            continue
        if plan.source.overrides_call(facts):
            found.append((facts.name, "the class has a __call__() of its own, which acall() would pass by"))
            continue
        obstacles = obstacles_of(forward) + plan.try_body(forward, facts).obstacles
        if obstacles:
            found.append((facts.name, explain(obstacles)))
    return found


def _add_aforward(plan: Plan, edits: Edits, facts: ClassFacts) -> None:
    forward = facts.methods.get("forward")
    if forward is None or "aforward" in facts.methods or facts.name in plan.source.keep_sync:
        return
    edits.after.setdefault(forward, []).append(make_twin(plan, forward, facts))
    plan.notes.add("changed", f"{facts.name} has an aforward(): its calls are awaited.", plan.source.line(forward))


def _note_tools(plan: Plan) -> None:
    """Say which synchronous tools an agent of this file calls on the loop."""
    finder = _Tools(plan)
    plan.source.module.visit(finder)
    for name, function in sorted(finder.found.items()):
        plan.notes.add(
            "advice",
            f"{name}() is a synchronous tool: under asyncify and streamify it runs in a worker thread. Awaited by DSPy "
            f"alone it would stop the event loop; make it `async def`, or hand it over as dspy_live.Tool({name}).",
            plan.source.line(function),
        )


class _Tools(cst.CSTVisitor):
    """Finds the functions and methods of the file that an agent gets as they are, or as a ``dspy.Tool``."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found: dict[str, cst.FunctionDef] = {}
        self._classes: list[ClassFacts | None] = []

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        facts = self.plan.source.classes.get(node.name.value)
        self._classes.append(facts if facts is not None and facts.node is node else None)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        self._classes.pop()

    def visit_Call(self, node: cst.Call) -> None:
        if known.short(self.plan.source.imports.qualified(node.func)) not in known.WITH_TOOLS:
            return
        for arg in node.args:
            if isinstance(arg.value, cst.List) and (arg.keyword is None or arg.keyword.value == "tools"):
                for element in arg.value.elements:
                    self._tool(element.value)

    def _tool(self, node: cst.BaseExpression) -> None:
        if isinstance(node, cst.Call) and self.plan.source.imports.qualified(node.func) == "dspy.Tool" and node.args:
            node = node.args[0].value
        name = dotted(node) or ""
        facts = self._classes[-1] if self._classes else None
        if name.startswith("self.") and facts is not None:
            function = self.plan.source.method(facts, name.removeprefix("self."))
        else:
            function = self.plan.source.functions.get(name)
        if function is not None and function.asynchronous is None:
            self.found[name] = function


def _library(plan: Plan, edits: Edits) -> None:
    """In a file that runs nothing, others call its functions: those that wait get an asynchronous twin."""
    source = plan.source
    if running_part(plan) is not None or uses(source, "asyncio.run"):
        return
    methods = [(f.name, name, node) for f in source.classes.values() for name, node in f.methods.items()]
    plain = [each for each in methods if not source.is_program(source.classes[each[0]])]
    for cls, name, function in [*(("", name, node) for name, node in source.functions.items()), *plain]:
        if function.asynchronous is not None or function in edits.instead or name.startswith("__"):
            continue
        if is_view(function) and framework_of(source) == "flask":
            continue
        waits, can_have_twin = plan.waits(cls, name)
        if waits and can_have_twin:
            plan.twins.add((cls, name))
        elif waits:
            plan.note_sync(cls, name)


def _routes(plan: Plan, edits: Edits) -> None:
    """FastAPI handlers may be coroutine functions: make those that wait so, in place.

    A handler may call another one, and then awaits it. One that other code of the file calls stays as it is.
    """
    handlers = {
        name: function
        for name, function in plan.source.functions.items()
        if function.asynchronous is None and is_route(function) and not plan.try_body(function, None).obstacles
    }
    for name in list(handlers):
        if caller := _caller_outside(plan.source, name, handlers):
            del handlers[name]
            text = f"The handler {name}() stays synchronous, since {caller} calls it; FastAPI runs it in a thread."
            plan.notes.add("left", text, plan.source.line(plan.source.functions[name]))
    waiting = {name for name, function in handlers.items() if plan.try_body(function, None).awaited}
    while True:
        plan.in_place |= waiting
        more = {name for name, function in handlers.items() if plan.try_body(function, None).awaited} - waiting
        if not more:
            break
        waiting |= more
    for name, function in handlers.items():
        if name in waiting:
            edits.instead[function] = make_in_place(plan, function, None)
            plan.notes.add("changed", f"The handler {name}() is asynchronous now.", plan.source.line(function))


def _caller_outside(source: Source, name: str, handlers: Mapping[str, cst.FunctionDef]) -> str:
    """Return what of the file calls or hands on a handler without being one; empty where nothing does."""
    for statement in source.module.body:
        function = statement.name.value if isinstance(statement, cst.FunctionDef) else ""
        if function in handlers:
            continue
        if name in reads(statement) or (isinstance(statement, cst.ClassDef) and m.findall(statement, m.Name(name))):
            return f"{function}()" if function else "other code of the file"
    return ""
