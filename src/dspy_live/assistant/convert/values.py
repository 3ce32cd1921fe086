"""The value of an expression: a small, forgiving type inference for DSPy programs.

It answers one question: when this expression is called, does it wait, and how is it awaited? What it
does not know is opaque and is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.names import dotted

if TYPE_CHECKING:
    from dspy_live.assistant.convert.source import ClassFacts, Source


class Kind(Enum):
    """The behaviour of a value when it is called."""

    NATIVE = auto()
    """``await x.acall(…)``"""
    MODULE = auto()
    """A program with no ``aforward``: ``await dspy_live.asyncify(x)(…)``."""
    BLOCKING = auto()
    """Waits and can't be awaited: ``await asyncio.to_thread(x, …)``."""
    OPTIMISER = auto()
    """Its ``compile`` blocks."""
    OBJECT = auto()
    """An instance of a class of this file that is no program."""
    FUNCTION = auto()
    """A function or bound method of this file."""
    MANY = auto()
    """A collection of ``element``."""
    FOREIGN = auto()
    """Made by code of another file of the project or by a class of a library: ``origin`` says by which."""
    OPAQUE = auto()


PROGRAMS = (Kind.NATIVE, Kind.MODULE)


@dataclass(frozen=True, slots=True)
class Value:
    """A value as far as it is known; ``cls`` and ``function`` name definitions of the file."""

    kind: Kind
    cls: str = ""
    function: str = ""
    dspy: str = ""
    element: Value | None = None
    origin: str = ""


OPAQUE = Value(Kind.OPAQUE)


@dataclass(slots=True)
class Env:
    """The names that are visible at one place.

    Args:
        source: the analysed file.
        cls: the class whose method we are in, or ``None``.
        names: local names and their values; they hide the file's own.
        self_name: the name of the instance, usually ``self``, or of the class in a ``classmethod``.
        on_class: ``self_name`` is the class, so that calling it makes an instance.
    """

    source: Source
    cls: ClassFacts | None = None
    names: dict[str, Value] = field(default_factory=dict)
    self_name: str = ""
    on_class: bool = False

    def of(self, node: cst.BaseExpression | None) -> Value:
        """Return what ``node`` is worth."""
        if isinstance(node, cst.Name):
            return self._name(node)
        if isinstance(node, cst.Attribute):
            return self._attribute(node)
        if isinstance(node, cst.Call):
            return self._call(node)
        if isinstance(node, cst.Subscript):
            value = self.of(node.value)
            return value.element or OPAQUE if value.kind is Kind.MANY else self.source.stored.entry(node)
        if isinstance(node, cst.List | cst.Tuple | cst.Set):
            return _many(self.of(element.value) for element in node.elements)
        if isinstance(node, cst.Dict):
            return _many(self.of(element.value) for element in node.elements)
        if isinstance(node, cst.ListComp | cst.GeneratorExp | cst.SetComp):
            return _many([self.inside(node.for_in).of(node.elt)])
        if isinstance(node, cst.DictComp):
            return _many([self.inside(node.for_in).of(node.value)])
        if isinstance(node, cst.IfExp):
            return _first(self.of(node.body), self.of(node.orelse))
        if isinstance(node, cst.BooleanOperation):
            return _first(self.of(node.right), self.of(node.left))
        return self.of(node.value) if isinstance(node, cst.NamedExpr) else OPAQUE

    def inside(self, loop: cst.CompFor) -> Env:
        """Return the environment inside a comprehension."""
        env = replace(self, names=dict(self.names))
        clause: cst.CompFor | None = loop
        while clause is not None:
            env.bind(clause.target, env.element_of(clause.iter))
            clause = clause.inner_for_in
        return env

    def bind(self, target: cst.BaseExpression, value: Value) -> None:
        """Record an assignment to a name, or to a tuple of names."""
        if isinstance(target, cst.Name):
            if value.kind is not Kind.OPAQUE or target.value not in self.names:
                self.names[target.value] = value
        elif isinstance(target, cst.Tuple | cst.List):
            inner = value.element or OPAQUE if value.kind is Kind.MANY else OPAQUE
            for element in target.elements:
                self.bind(element.value, inner)

    def element_of(self, node: cst.BaseExpression) -> Value:
        """Return what a loop over ``node`` gives: an element, or a tuple of them as a collection."""
        if isinstance(node, cst.Call):
            name = dotted(node.func) or ""
            last = name.rpartition(".")[2]
            if last in ("enumerate", "zip"):
                return _many(self.element_of(arg.value) for arg in node.args)
            if last in ("reversed", "sorted", "list", "tuple", "iter") and node.args:
                return self.element_of(node.args[0].value)
            if last in ("items", "values") and isinstance(node.func, cst.Attribute):
                element = self.element_of(node.func.value)
                return element if last == "values" else _many([element])
        value = self.of(node)
        return value.element or OPAQUE if value.kind is Kind.MANY else OPAQUE

    def annotated(self, node: cst.BaseExpression) -> Value:
        """Return the value that a type annotation promises."""
        if isinstance(node, cst.SimpleString):
            try:
                node = cst.parse_expression(str(node.evaluated_value))
            except cst.ParserSyntaxError:
                return OPAQUE
        if isinstance(node, cst.BinaryOperation):
            return _first(self.annotated(node.left), self.annotated(node.right))
        if isinstance(node, cst.Subscript):
            inner = [s.slice.value for s in node.slice if isinstance(s.slice, cst.Index)]
            values = [self.annotated(item) for item in inner]
            outer = (dotted(node.value) or "").rpartition(".")[2]
            return _first(*values) if outer in ("Optional", "Union", "Annotated") else _many(values)
        return self._instance(node)

    def _name(self, node: cst.Name) -> Value:
        if node.value in self.names:
            return self.names[node.value]
        if node.value in self.source.variables:
            return self.source.variables[node.value]
        if node.value in self.source.functions:
            return Value(Kind.FUNCTION, function=node.value)
        return OPAQUE

    def _attribute(self, node: cst.Attribute) -> Value:
        if self.source.imports.qualified(node) == "dspy.settings.lm":
            return Value(Kind.NATIVE, dspy="LM")
        if self.cls is not None and m.matches(node.value, m.Call(func=m.Name("super"))):
            return self.source.inherited(self.cls, node.attr.value)
        if (read := self.property_of(node)) is not None:
            return self.source.returned(*read)
        facts = self._class_of(node.value)
        return self.source.member(facts, node.attr.value) if facts is not None else self.source.stored.state(node)

    def _class_of(self, node: cst.BaseExpression) -> ClassFacts | None:
        """Return the class of the file that ``node`` is, or that it is an instance of."""
        if self.cls is not None and isinstance(node, cst.Name) and node.value == self.self_name:
            return self.cls
        if isinstance(node, cst.Name) and node.value in self.source.classes and node.value not in self.names:
            return self.source.classes[node.value]
        value = self.of(node)
        return self.source.classes.get(value.cls) if value.kind is not Kind.FUNCTION else None

    def property_of(self, node: cst.Attribute) -> tuple[str, str] | None:
        """Return (class, name) where ``node`` reads a property of a class of the file."""
        facts = self._class_of(node.value)
        value = self.source.member(facts, node.attr.value) if facts is not None else OPAQUE
        if value.kind is not Kind.FUNCTION or not value.cls:
            return None
        decorators = self.source.classes[value.cls].methods[value.function].decorators
        names = {(dotted(each.decorator) or "").rpartition(".")[2] for each in decorators}
        return (value.cls, value.function) if names & {"property", "cached_property"} else None

    def _call(self, node: cst.Call) -> Value:
        instance = self._instance(node.func)
        if instance.kind is not Kind.OPAQUE:
            return instance
        if isinstance(node.func, cst.Attribute):
            method = node.func.attr.value
            if method == "compile" and self.of(node.func.value).kind is Kind.OPTIMISER and node.args:
                student = next((a for a in node.args if a.keyword and a.keyword.value == "student"), node.args[0])
                return self.of(student.value)
            if method in ("deepcopy", "reset_copy", "copy"):
                receiver = self.of(node.func.value)
                return receiver if receiver.kind is not Kind.OPAQUE or not node.args else self.of(node.args[0].value)
        qualified = self.source.imports.qualified(node.func)
        if qualified == "dspy.load":
            return Value(Kind.MODULE, dspy="Module")
        if qualified in ("copy.deepcopy", "copy.copy") and node.args:
            return self.of(node.args[0].value)
        return self._returned(node.func)

    def _returned(self, func: cst.BaseExpression) -> Value:
        """Return the value that a function of this file returns, by its annotation or its plain ``return``."""
        value = self.of(func)
        return self.source.returned(value.cls, value.function) if value.kind is Kind.FUNCTION else OPAQUE

    def _foreign(self, qualified: str) -> Value:
        """Return what calling an imported name gives; a class of a library makes an object, its functions data."""
        if self.source.elsewhere.is_program(qualified):
            return Value(Kind.MODULE, dspy="Module", origin=qualified)
        place = self.source.elsewhere.place(qualified)
        if place == "project" or (place == "library" and _is_class_name(qualified)):
            return Value(Kind.FOREIGN, origin=qualified)
        return OPAQUE

    def _instance(self, node: cst.BaseExpression) -> Value:
        """Return what calling a class gives."""
        name = dotted(node)
        if self.on_class and self.cls is not None and name == self.self_name:
            return Value(self.source.kind_of(self.cls), cls=self.cls.name)
        if name in self.source.classes:
            facts = self.source.classes[name]
            return Value(self.source.kind_of(facts), cls=name)
        qualified = self.source.imports.qualified(node)
        dspy = known.short(qualified)
        if dspy is None:
            return self._foreign(qualified) if qualified is not None else OPAQUE
        for names, kind in (
            (known.NATIVE, Kind.NATIVE),
            (known.SYNC_MODULES, Kind.MODULE),
            (known.BLOCKING, Kind.BLOCKING),
            (known.OPTIMISERS, Kind.OPTIMISER),
        ):
            if dspy in names:
                return Value(kind, dspy=dspy)
        return OPAQUE


def _is_class_name(qualified: str) -> bool:
    return qualified.rpartition(".")[2][:1].isupper()


def _first(*values: Value) -> Value:
    return next((value for value in values if value.kind is not Kind.OPAQUE), OPAQUE)


def _many(values: Iterator[Value] | list[Value]) -> Value:
    element = _first(*values)
    return OPAQUE if element.kind is Kind.OPAQUE else Value(Kind.MANY, element=element)
