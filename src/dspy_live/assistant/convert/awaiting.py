"""Turns calls that wait into calls that are awaited, inside one body of code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.calls import (
    awaited,
    awaited_program,
    in_parentheses,
    last_attribute,
    method_of,
    renamed,
    twin_name,
)
from dspy_live.assistant.convert.names import dotted
from dspy_live.assistant.convert.obstacles import Obstacle, explain, obstacles_of, yields
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import ClassFacts, Source
from dspy_live.assistant.convert.values import PROGRAMS, Env, Kind, Value

Special = Callable[[Env, Value, cst.Call], cst.BaseExpression | None]
"""A conversion's own treatment of a call: (where, what is called, the call) → replacement or ``None``."""


@dataclass(slots=True)
class Plan:
    """The aims of a conversion, and the changes that it has found to be needed.

    Args:
        source: the analysed file.
        special: the conversion's own treatment of some calls.
        twins: functions whose asynchronous twin is called: (class name or "", function name).
        imports: modules that the new code uses.
        in_place: functions that become asynchronous themselves.
        library: functions that wait for a library's calls alone, and for no module.
    """

    source: Source
    notes: Notes = field(default_factory=Notes)
    special: Special | None = None
    twins: set[tuple[str, str]] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    in_place: set[str] = field(default_factory=set)
    library: set[tuple[str, str]] = field(default_factory=set)
    _known: dict[tuple[str, str], tuple[bool, bool]] = field(default_factory=dict)

    def definition(self, cls: str, name: str) -> cst.FunctionDef | None:
        """Return a function or method of the file."""
        if cls:
            return self.source.method(self.source.classes[cls], name)
        return self.source.functions.get(name)

    def waits(self, cls: str, name: str) -> tuple[bool, bool]:
        """Return (the function waits somewhere inside, it can have an asynchronous twin)."""
        key = (cls, name)
        if key not in self._known:
            self._known[key] = (False, True)  # a recursive call is as its function is
            definition = self.definition(cls, name)
            if definition is not None and definition.asynchronous is None:
                facts = self.source.classes.get(cls)
                trial = self.try_body(definition, facts)
                waits = trial.awaited > 0
                if waits and trial.awaited == trial.library:
                    self.library.add(key)
                self._known[key] = (waits, not self.obstacles(definition, facts))
        return self._known[key]

    def note_sync(self, cls: str, name: str) -> None:
        """Say why a function that waits stays as it is."""
        function = self.definition(cls, name)
        if function is not None:
            reasons = explain(self.obstacles(function, self.source.classes.get(cls)))
            self.notes.add("left", f"{name}() stays synchronous: {reasons}.", self.source.line(function))

    def obstacles(self, function: cst.FunctionDef, facts: ClassFacts | None) -> list[Obstacle]:
        """Return all that stands against an asynchronous twin of a function."""
        found = obstacles_of(function) + self.try_body(function, facts).obstacles
        if function.name.value.startswith("__"):
            found.append(Obstacle("Python calls it by this name"))
        return found

    def try_body(self, function: cst.FunctionDef, facts: ClassFacts | None) -> Awaiter:
        """Rewrite a function's body without keeping it, to see what would happen."""
        trial = replace(self, notes=Notes(), twins=set(), imports=set())
        awaiter = Awaiter(trial, self.source.env_of(function, facts), function.body, in_function=True)
        function.body.visit(awaiter)
        return awaiter


class Awaiter(cst.CSTTransformer):
    """Rewrites one body.

    ``awaited`` counts the calls, ``library`` those among them that wait for no module, and ``obstacles`` says what
    can't be awaited where it stands.
    """

    def __init__(self, plan: Plan, env: Env, body: cst.CSTNode | None = None, *, in_function: bool = False) -> None:
        super().__init__()
        self.plan = plan
        self.in_function = in_function
        self.envs = [env]
        self.awaited = self.library = 0
        self.obstacles: list[Obstacle] = []
        self._skip: set[cst.CSTNode] = set()
        self._read_out: set[cst.CSTNode] = set()
        self._nested = self._nested_async(body) if body is not None else set()

    # ---- scopes

    def visit_ListComp(self, node: cst.ListComp) -> None:
        self.envs.append(self.envs[-1].inside(node.for_in))

    def leave_ListComp(self, original_node: cst.ListComp, updated_node: cst.ListComp) -> cst.ListComp:
        self.envs.pop()
        return updated_node

    def visit_SetComp(self, node: cst.SetComp) -> None:
        self.envs.append(self.envs[-1].inside(node.for_in))

    def leave_SetComp(self, original_node: cst.SetComp, updated_node: cst.SetComp) -> cst.SetComp:
        self.envs.pop()
        return updated_node

    def visit_DictComp(self, node: cst.DictComp) -> None:
        self.envs.append(self.envs[-1].inside(node.for_in))

    def leave_DictComp(self, original_node: cst.DictComp, updated_node: cst.DictComp) -> cst.DictComp:
        self.envs.pop()
        return updated_node

    def visit_GeneratorExp(self, node: cst.GeneratorExp) -> None:
        self.envs.append(self.envs[-1].inside(node.for_in))

    def leave_GeneratorExp(self, original_node: cst.GeneratorExp, updated_node: cst.GeneratorExp) -> cst.BaseExpression:
        """An ``await`` in a generator makes it an asynchronous one: a list takes its place, or it stays as it was."""
        self.envs.pop()
        first = updated_node.for_in.with_changes(iter=cst.Name("_"))  # what it loops over is made outside of it
        if not m.findall(updated_node.elt, m.Await()) and not m.findall(first, m.Await()):
            return updated_node
        if original_node in self._read_out:
            return cst.ListComp(elt=updated_node.elt, for_in=updated_node.for_in)
        self._obstacle("a generator expression calls a module, and its reader can't await", original_node)
        return original_node

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:
        return False

    def visit_Lambda(self, node: cst.Lambda) -> bool:
        if self._probe(node.body, self.envs[-1]):
            self._obstacle("a lambda calls a module, and a lambda can't await", node)
        return False

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        return False

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        env = self.plan.source.env_of(original_node, self.envs[-1].cls, self.envs[-1])
        inner = Awaiter(self.plan, env, original_node.body, in_function=True)
        if original_node.asynchronous is None and original_node.name.value not in self._nested:
            if self._probe(original_node.body, env):
                name = original_node.name.value
                self._obstacle(f"the inner function {name}() calls a module and is handed on as a value", original_node)
            return updated_node
        body = original_node.body.visit(inner)
        self.awaited += inner.awaited
        self.library += inner.library
        self.obstacles += inner.obstacles
        return updated_node.with_changes(body=body, asynchronous=updated_node.asynchronous or cst.Asynchronous())

    def _nested_async(self, body: cst.CSTNode) -> set[str]:
        """Inner functions that wait and are only ever called by name."""
        names: set[str] = set()
        for node in m.findall(body, m.FunctionDef(asynchronous=None)):
            assert isinstance(node, cst.FunctionDef)
            env = self.plan.source.env_of(node, self.envs[-1].cls, self.envs[-1])
            name = node.name.value
            uses = len(m.findall(body, m.Name(name))) - 1
            calls = len(m.findall(body, m.Call(func=m.Name(name))))
            if uses == calls and not obstacles_of(node) and self._probe(node.body, env):
                names.add(name)
        return names

    # ---- calls

    def visit_Await(self, node: cst.Await) -> None:
        self._skip.add(node.expression)

    def visit_Call(self, node: cst.Call) -> None:
        if (dotted(node.func) or last_attribute(node.func)).rpartition(".")[2] in known.CONSUMERS:
            self._read_out |= {arg.value for arg in node.args}

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        updated_node = updated_node.with_changes(func=in_parentheses(updated_node.func))
        if original_node in self._skip:
            return updated_node
        if self.plan.source.imports.qualified(original_node.func) == "asyncio.run" and len(updated_node.args) == 1:
            return cst.Await(updated_node.args[0].value)
        replacement = self._replacement(original_node, updated_node)
        if replacement is None:
            return updated_node
        self.awaited += 1
        return replacement

    def leave_Await(self, original_node: cst.Await, updated_node: cst.Await) -> cst.BaseExpression:
        call, inner = original_node.expression, updated_node.expression
        if self.plan.special is None or not (isinstance(call, cst.Call) and isinstance(inner, cst.Call)):
            return updated_node
        program, wanted = awaited_program(self.plan.source, call), awaited_program(self.plan.source, inner)
        if program is None or wanted is None:
            return updated_node
        own = self.plan.special(self.envs[-1], self.envs[-1].of(program), inner.with_changes(func=wanted))
        if own is None:
            return updated_node
        self.awaited += 1
        return own.with_changes(lpar=updated_node.lpar, rpar=updated_node.rpar)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        found = self.envs[-1].property_of(node)
        if found is not None and self.plan.waits(*found)[0]:
            self._obstacle(f"the property {found[1]} calls a module, and reading it can't be awaited", node)

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        return updated_node.with_changes(value=in_parentheses(updated_node.value))

    def leave_Subscript(self, original_node: cst.Subscript, updated_node: cst.Subscript) -> cst.Subscript:
        return updated_node.with_changes(value=in_parentheses(updated_node.value))

    def leave_With(self, original_node: cst.With, updated_node: cst.With) -> cst.With:
        for item in original_node.items:
            text = cst.Module([]).code_for_node(item.item).lower()
            if ("lock" in text or "semaphore" in text) and self._probe(original_node.body, self.envs[-1]):
                self._obstacle("it holds a lock while it calls a module; awaiting there could deadlock", original_node)
        return updated_node

    def _replacement(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression | None:
        env = self.envs[-1]
        func = original.func
        value = env.of(func)
        if self.plan.special is not None and (own := self.plan.special(env, value, updated)) is not None:
            return own
        if isinstance(func, cst.Name):
            if func.value in self._nested:
                return awaited(updated)
            if func.value == env.self_name and not env.on_class and env.cls and self.plan.source.is_program(env.cls):
                return awaited(method_of(updated, "acall"))
        if value.kind in (Kind.NATIVE, Kind.MODULE, Kind.BLOCKING):
            return self._call_of(value, updated)
        if value.kind is Kind.FUNCTION:
            return self._call_of_function(value, original, updated)
        if value.kind is Kind.OBJECT and self.plan.waits(value.cls, "__call__")[0]:
            return self._in_thread(updated)
        if self._hands_on(original):
            return None
        if isinstance(func, cst.Attribute):
            found = self._call_of_method(func, original, updated)
        else:
            found = self._call_of_library(original, updated)
        return found or self._call_of_elsewhere(original, updated)

    def _call_of_elsewhere(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression | None:
        """Send a call of the project's other files to a thread, and name the line of one of a library."""
        if self.plan.special is not None or not self.in_function:
            return None
        source, env, func = self.plan.source, self.envs[-1], original.func
        name = dotted(func) or last_attribute(func)
        if isinstance(func, cst.Attribute) and env.cls is not None and dotted(func.value) == env.self_name:
            member = source.member(env.cls, func.attr.value)
            base = source.unknown_base(env.cls)
            if base and member.kind is Kind.OPAQUE and func.attr.value not in known.OF_EVERY_MODULE:
                self._obstacle(f"{name}() comes from {base}, of another file, and may call a module", original)
                return None
        origin = env.of(func).origin or (env.of(func.value).origin if isinstance(func, cst.Attribute) else "")
        imported = source.imports.qualified(func)
        if not origin and (imported is None or imported.rpartition(".")[2][:1].isupper()):
            return None
        place = source.elsewhere.place(origin or imported or "")
        if place == "project":
            self.library += 1
            return self._in_thread(updated)
        if place == "library":
            text = f"{name}() is a library's: if it waits for a network or a disk, write"
            text = f"{text} `await asyncio.to_thread({name}, …)`."
            self.plan.notes.add("advice", text, source.line(original))
        return None

    def _hands_on(self, call: cst.Call) -> bool:
        """Note a module that is handed to ``map`` or to a pool of threads: its results are waited for, not awaited."""
        name = dotted(call.func) or last_attribute(call.func)
        if name.rpartition(".")[2] not in known.CALLERS:
            return False
        values = [self.envs[-1].of(arg.value) for arg in call.args]
        waits = (
            v.kind in PROGRAMS or (v.kind is Kind.FUNCTION and self.plan.waits(v.cls, v.function)[0]) for v in values
        )
        if not any(waits):
            return False
        self.awaited += 1
        self._obstacle(f"{name}() calls a module that it is handed, and can't await it", call)
        return True

    def _call_of(self, value: Value, updated: cst.Call) -> cst.BaseExpression:
        if value.kind is Kind.NATIVE:
            return awaited(method_of(updated, "acall"))
        if value.kind is Kind.MODULE:
            self.plan.imports.add("dspy_live")
            wrapped = cst.Call(cst.Attribute(cst.Name("dspy_live"), cst.Name("asyncify")), [cst.Arg(updated.func)])
            if value.dspy == "CodeAct" or (value.cls and self._inherits_other(value.cls)):
                # An inherited aforward does something else than this class's own forward.
                equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
                thread = cst.Arg(cst.SimpleString('"thread"'), keyword=cst.Name("execution"), equal=equal)
                wrapped = wrapped.with_changes(args=[*wrapped.args, thread])
            return awaited(updated.with_changes(func=wrapped))
        return self._in_thread(updated)

    def _inherits_other(self, cls: str) -> bool:
        source = self.plan.source
        above = [facts for facts in source.ancestors(source.classes[cls]) if facts.name != cls]
        if source.overrides_call(source.classes[cls]) and source.method(source.classes[cls], "aforward") is not None:
            return True
        converts = any("aforward" in facts.methods or source.kind_of(facts) is Kind.NATIVE for facts in above)
        return converts or source.dspy_base(source.classes[cls]) in {*known.NATIVE, "CodeAct"}

    def _call_of_function(self, value: Value, original: cst.Call, updated: cst.Call) -> cst.BaseExpression | None:
        definition = self.plan.definition(value.cls, value.function)
        if definition is None or definition.asynchronous is not None:
            return None
        by_name = (last_attribute(original.func) if value.cls else dotted(original.func)) == value.function
        if by_name and value.cls and value.function in ("forward", "__call__"):
            facts = self.plan.source.classes[value.cls]
            if self.plan.source.kind_of(facts) is Kind.NATIVE:
                return awaited(renamed(updated, "aforward" if value.function == "forward" else "acall"))
        waits, can_have_twin = self.plan.waits(value.cls, value.function)
        if not waits:
            return None
        if yields(definition.body):
            self._obstacle(f"the generator {value.function}() calls a module, and its reader can't await", original)
            return None
        if (value.cls, value.function) in self.plan.library:
            self.library += 1
        if not by_name and value.cls:  # a method under another name: that of its twin is not known there
            return self._in_thread(updated)
        if value.function in self.plan.in_place and not value.cls:
            return awaited(updated)
        if not can_have_twin:
            self.plan.note_sync(value.cls, value.function)
            return self._in_thread(updated)
        self.plan.twins.add((value.cls, value.function))
        if not by_name:
            return awaited(updated.with_changes(func=cst.Name(twin_name(value.function))))
        return awaited(renamed(updated, twin_name(value.function)))

    def _call_of_method(self, func: cst.Attribute, original: cst.Call, updated: cst.Call) -> cst.BaseExpression | None:
        method = func.attr.value
        receiver = self.envs[-1].of(func.value)
        if receiver.kind in PROGRAMS and method in ("forward", "__call__"):
            if receiver.kind is Kind.NATIVE:
                return awaited(renamed(updated, "aforward" if method == "forward" else "acall"))
            assert isinstance(updated.func, cst.Attribute)
            return self._call_of(receiver, updated.with_changes(func=updated.func.value))
        if receiver.kind in PROGRAMS and method == "batch":
            return self._in_thread(updated)
        if receiver.kind is Kind.OPTIMISER and method == "compile":
            return self._in_thread(updated)
        if m.matches(func.value, m.Call(func=m.Name("super"))) and method in ("forward", "__call__"):
            cls = self.envs[-1].cls
            if cls is not None and self.plan.source.dspy_base(cls) in known.NATIVE:
                return awaited(renamed(updated, "aforward" if method == "forward" else "acall"))
            self._obstacle(f"super().{method}() has no asynchronous form", original)
        return self._call_of_library(original, updated)

    def _call_of_library(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression | None:
        name = self.plan.source.imports.qualified(original.func)
        if name == "time.sleep":
            self.library += 1
            self.plan.imports.add("asyncio")
            return awaited(updated.with_changes(func=cst.Attribute(cst.Name("asyncio"), cst.Name("sleep"))))
        if name not in known.BLOCKING_CALLS:
            return None
        self.library += 1
        return self._in_thread(updated)

    def _in_thread(self, updated: cst.Call) -> cst.BaseExpression:
        self.plan.imports.add("asyncio")
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")) if updated.args else cst.MaybeSentinel.DEFAULT
        args = [cst.Arg(updated.func, comma=comma), *updated.args]
        func = cst.Attribute(cst.Name("asyncio"), cst.Name("to_thread"))
        return awaited(updated.with_changes(func=func, args=args))

    def _probe(self, node: cst.CSTNode, env: Env) -> bool:
        """Tell whether a piece of code would wait, without rewriting it."""
        trial = replace(self.plan, notes=Notes(), twins=set(), imports=set())
        awaiter = Awaiter(trial, env)
        node.visit(awaiter)
        return awaiter.awaited > 0

    def _obstacle(self, text: str, node: cst.CSTNode) -> None:
        self.obstacles.append(Obstacle(text, self.plan.source.line(node)))
