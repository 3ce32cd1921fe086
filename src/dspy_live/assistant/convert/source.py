"""A user's file, read: its classes, their attributes, its functions, its programs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import libcst as cst
import libcst.matchers as m
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.elsewhere import Elsewhere
from dspy_live.assistant.convert.names import Imports, dotted
from dspy_live.assistant.convert.report import DoesNotParse
from dspy_live.assistant.convert.stored import Stored, find_arguments, find_stored
from dspy_live.assistant.convert.values import OPAQUE, PROGRAMS, Env, Kind, Value

DUNDER_MAIN = m.If(
    test=m.Comparison(
        left=m.Name("__name__"), comparisons=[m.ComparisonTarget(operator=m.Equal(), comparator=m.SimpleString())]
    )
)


@dataclass(slots=True)
class ClassFacts:
    """One class of the file."""

    name: str
    node: cst.ClassDef
    bases: list[cst.BaseExpression]
    methods: dict[str, cst.FunctionDef]
    attributes: dict[str, Value] = field(default_factory=dict)


class Source:
    """One parsed file and what is known of it.

    Args:
        text: the file's source.
        keep_sync: classes that must be taken as synchronous although they could be converted.
        will_convert: take the other classes as having an ``aforward``, which they are about to get.
        first_pass: false when the text is already changed, so that its line numbers mean nothing to the user.
        original: the user's text, where this one was made from it: lines are then looked up there.
        elsewhere: the other files of the project.

    Raises:
        DoesNotParse: the text is no valid Python.
    """

    def __init__(
        self,
        text: str,
        keep_sync: frozenset[str] = frozenset(),
        *,
        will_convert: bool = False,
        first_pass: bool = True,
        original: str = "",
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.text = text
        self.elsewhere = elsewhere or Elsewhere()
        self.original = original
        self.first_pass = first_pass
        self.keep_sync = keep_sync
        self.will_convert = will_convert
        self.module = _parse(text)
        self.imports = Imports()
        self.module.visit(self.imports)
        self.classes: dict[str, ClassFacts] = {}
        self.functions: dict[str, cst.FunctionDef] = {}
        self.variables: dict[str, Value] = {}
        self.stored = Stored()
        self._returning: set[tuple[str, str]] = set()
        self._positions: Mapping[cst.CSTNode, CodeRange] | None = None
        for statement in statements(self.module.body):
            self._define(statement)
        for _ in range(2):  # an attribute may hold a class or a variable that is defined further down
            for facts in self.classes.values():
                self._read_attributes(facts)
            env = Env(self)
            scan(self.module.body, env)
            self.variables = env.names
        self.stored = find_stored(self)
        self.variables |= self.stored.globals
        for _ in range(2):  # what is handed to a function may be handed on
            self.stored.arguments = find_arguments(self)

    def line(self, node: cst.CSTNode) -> int:
        """Return the line of a node of the user's file, from 1; 0 where it can't be told."""
        if not self.first_pass and not self.original:
            return 0
        if self._positions is None:  # a third of the whole reading, and most nodes are never asked about
            wrapper = MetadataWrapper(self.module, unsafe_skip_copy=True)
            self._positions = wrapper.resolve(PositionProvider)
        position = self._positions.get(node)
        if position is None or self.first_pass:
            return position.start.line if position is not None else 0
        text = self.text.splitlines()[position.start.line - 1]
        found = [number for number, line in enumerate(self.original.splitlines(), 1) if line == text]
        return found[0] if len(found) == 1 else 0

    def _define(self, node: cst.CSTNode) -> None:
        if isinstance(node, cst.FunctionDef):
            self.functions[node.name.value] = node
        elif isinstance(node, cst.ClassDef):
            bases = [arg.value for arg in node.bases if arg.keyword is None]
            methods = {item.name.value: item for item in node.body.body if isinstance(item, cst.FunctionDef)}
            self.classes[node.name.value] = ClassFacts(node.name.value, node, bases, methods)

    def _read_attributes(self, facts: ClassFacts) -> None:
        for target, value in assignments(facts.node.body.body, Env(self, facts)):
            if isinstance(target, cst.Name):
                facts.attributes[target.value] = value
        for method in facts.methods.values():
            env = self.env_of(method, facts)
            for target, value in assignments(method.body.body, env):
                if (
                    isinstance(target, cst.Attribute)
                    and isinstance(target.value, cst.Name)
                    and target.value.value == env.self_name
                    and (value.kind is not Kind.OPAQUE or target.attr.value not in facts.attributes)
                ):
                    facts.attributes[target.attr.value] = value

    def env_of(self, function: cst.FunctionDef, facts: ClassFacts | None = None, outer: Env | None = None) -> Env:
        """Return the environment of a function's body: its parameters and its local variables."""
        params = [*function.params.posonly_params, *function.params.params, *function.params.kwonly_params]
        decorators = {dotted(d.decorator) for d in function.decorators}
        static = "staticmethod" in decorators
        self_name = params[0].name.value if facts is not None and params and not static else ""
        if outer is not None:  # a function inside of a method has the method's own self
            self_name = outer.self_name
        on_class = outer.on_class if outer is not None else "classmethod" in decorators
        env = Env(self, facts, dict(outer.names) if outer is not None else {}, self_name, on_class)
        for param in params:
            if param.name.value != self_name:
                env.names[param.name.value] = (
                    env.annotated(param.annotation.annotation)
                    if param.annotation
                    else self.stored.arguments.get((function.name.value, param.name.value), OPAQUE)
                    if facts is None
                    else OPAQUE
                )
        scan(function.body.body, env)
        return env

    def ancestors(self, facts: ClassFacts) -> Iterator[ClassFacts]:
        """Yield the class and its ancestors in this file."""
        yield facts
        for base in facts.bases:
            name = dotted(base)
            if name in self.classes and name != facts.name:
                yield from self.ancestors(self.classes[name])

    def member(self, facts: ClassFacts, name: str) -> Value:
        """Return what ``self.name`` is in a class."""
        for each in self.ancestors(facts):
            if name in each.methods:
                return Value(Kind.FUNCTION, cls=each.name, function=name)
            if name in each.attributes:
                return each.attributes[name]
        return OPAQUE

    def inherited(self, facts: ClassFacts, name: str) -> Value:
        """Return what ``super().name`` is in a class."""
        for each in self.ancestors(facts):
            if each is not facts and name in each.methods:
                return Value(Kind.FUNCTION, cls=each.name, function=name)
        return OPAQUE

    def unknown_base(self, facts: ClassFacts) -> str:
        """Return the base class that another file defines and whose methods may wait; empty where there is none."""
        for each in self.ancestors(facts):
            for base in each.bases:
                qualified = self.imports.qualified(base)
                if qualified is None or known.short(qualified) is not None:
                    continue
                if self.elsewhere.place(qualified) != "quiet":
                    return dotted(base) or ""
        return ""

    def dspy_base(self, facts: ClassFacts) -> str | None:
        """Return the DSPy class that a class descends from: ``"Module"``, ``"ReAct"``, …"""
        for each in self.ancestors(facts):
            for base in each.bases:
                name = known.short(self.imports.qualified(base))
                if name in known.NATIVE | known.SYNC_MODULES and name not in ("LM", "Embedder"):
                    return name
        return None

    def is_program(self, facts: ClassFacts) -> bool:
        """True for a class whose instances are DSPy programs."""
        if self.dspy_base(facts) is not None:
            return True
        unknown_base = any(
            dotted(base) not in self.classes and not (self.imports.qualified(base) or "").startswith("torch")
            for base in facts.bases
        )
        holds = any(value.kind in PROGRAMS for value in facts.attributes.values())
        return unknown_base and holds and self.method(facts, "forward") is not None

    def method(self, facts: ClassFacts, name: str) -> cst.FunctionDef | None:
        """Return a method of a class or of its ancestors in this file."""
        return next((each.methods[name] for each in self.ancestors(facts) if name in each.methods), None)

    def kind_of(self, facts: ClassFacts) -> Kind:
        """Return how the instances of a class behave when they are called."""
        if not self.is_program(facts):
            return Kind.OBJECT
        if self.overrides_call(facts):
            return Kind.MODULE
        for each in self.ancestors(facts):
            if "aforward" in each.methods:
                return Kind.NATIVE
            if "forward" in each.methods:
                converts = self.will_convert and each.name not in self.keep_sync
                return Kind.NATIVE if converts else Kind.MODULE
        return Kind.NATIVE if self.dspy_base(facts) in known.NATIVE else Kind.MODULE

    def overrides_call(self, facts: ClassFacts) -> bool:
        """Tell whether a program has a ``__call__`` of its own that ``acall`` would pass by."""
        return self.method(facts, "__call__") is not None and self.method(facts, "acall") is None

    def programs(self) -> list[ClassFacts]:
        """Return the file's program classes, in its order."""
        return [facts for facts in self.classes.values() if self.is_program(facts)]

    def returned(self, cls: str, name: str) -> Value:
        """Return what a function, or with ``cls`` a method, gives: by its annotation or its plain ``return``."""
        facts = self.classes[cls] if cls else None
        definition = facts.methods[name] if facts is not None else self.functions[name]
        if definition.asynchronous is not None or (cls, name) in self._returning:
            return OPAQUE
        self._returning.add((cls, name))
        try:
            env = self.env_of(definition, facts)
            if definition.returns is not None:
                return env.annotated(definition.returns.annotation)
            found = [
                env.of(node.value) for node in m.findall(definition.body, m.Return()) if isinstance(node, cst.Return)
            ]
            return next((value for value in found if value.kind is not Kind.OPAQUE), OPAQUE)
        finally:
            self._returning.discard((cls, name))

    def guard(self) -> cst.If | None:
        """Return the ``if __name__ == "__main__"`` statement, the last one if there are several."""
        found = [node for node in self.module.body if isinstance(node, cst.If) and m.matches(node, DUNDER_MAIN)]
        return found[-1] if found else None


def with_open_guard(text: str) -> str:
    """Return the text with ``if __name__ == "__main__": main()`` on two lines, so that there is room for more."""
    module = _parse(text)
    body: list[cst.CSTNode] = []
    for node in module.body:
        if (
            m.matches(node, DUNDER_MAIN)
            and isinstance(node, cst.If)
            and isinstance(node.body, cst.SimpleStatementSuite)
        ):
            line = cst.SimpleStatementLine(node.body.body, trailing_whitespace=node.body.trailing_whitespace)
            body.append(node.with_changes(body=cst.IndentedBlock([line])))
        else:
            body.append(node)
    return module.with_changes(body=body).code


def check_syntax(text: str) -> None:
    """Raise ``SyntaxError`` for what this Python can't compile. The user's own syntax warnings are not repeated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compile(text, "program.py", "exec", dont_inherit=True)


def _parse(text: str) -> cst.Module:
    try:
        module = cst.parse_module(text)
        check_syntax(text)  # what libcst reads may be of a later Python
        return module
    except SyntaxError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        raise DoesNotParse(
            f"The file is not valid Python {version}: line {error.lineno}: {error.msg}",
            line=error.lineno or 0,
            column=error.offset or 0,
        ) from error
    except cst.ParserSyntaxError as error:
        lines = text.splitlines()
        line = lines[error.raw_line - 1].strip() if 0 < error.raw_line <= len(lines) else ""
        raise DoesNotParse(
            f"The file is not valid Python: line {error.raw_line}, column {error.raw_column + 1}"
            + (f", near: {line}" if line else ""),
            line=error.raw_line,
            column=error.raw_column + 1,
        ) from error
    except (UnicodeError, RecursionError, ValueError) as error:
        raise DoesNotParse(f"The file could not be read as Python: {error}", line=0, column=0) from error


def statements(body: object) -> Iterator[cst.CSTNode]:
    """Yield the statements of a body and of the plain blocks in it (``if``, ``for``, ``with``, …), not of defs."""
    for node in body if isinstance(body, list | tuple) else ():
        yield node
        if isinstance(node, cst.FunctionDef | cst.ClassDef | cst.SimpleStatementLine | cst.BaseSmallStatement):
            continue
        parts = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
        for part in [*parts, *getattr(node, "handlers", ()), *getattr(node, "cases", ())]:
            if isinstance(part, cst.BaseSuite):
                yield from statements(part.body)
            elif part is not None and not isinstance(part, list | tuple):
                yield from statements([part])


def assignments(body: object, env: Env) -> Iterator[tuple[cst.BaseExpression, Value]]:
    """Yield (target, value) for every assignment in a body, nested blocks included."""
    for node in statements(body):
        for found in node.body if isinstance(node, cst.SimpleStatementLine) else [node]:
            if isinstance(found, cst.Assign):
                for target in found.targets:
                    yield from _pairs(target.target, found.value, env)
            elif isinstance(found, cst.AnnAssign):
                value = env.of(found.value)
                known_value = value if value.kind is not Kind.OPAQUE else env.annotated(found.annotation.annotation)
                yield found.target, known_value


def _pairs(
    target: cst.BaseExpression, value: cst.BaseExpression, env: Env
) -> Iterator[tuple[cst.BaseExpression, Value]]:
    """Yield (target, value) of one assignment; ``a, b = x, y`` is two."""
    sides = (cst.Tuple, cst.List)
    if isinstance(target, sides) and isinstance(value, sides) and len(target.elements) == len(value.elements):
        starred = any(isinstance(each, cst.StarredElement) for each in [*target.elements, *value.elements])
        if not starred:
            for left, right in zip(target.elements, value.elements, strict=True):
                yield from _pairs(left.value, right.value, env)
            return
    yield target, env.of(value)


def scan(body: object, env: Env) -> None:
    """Bind the names that the statements of one scope assign, in order."""
    for node in statements(body):
        if isinstance(node, cst.SimpleStatementLine | cst.BaseSmallStatement):
            for target, value in assignments([node], env):
                env.bind(target, value)
        elif isinstance(node, cst.For):
            env.bind(node.target, env.element_of(node.iter))
        elif isinstance(node, cst.With):
            for item in node.items:
                if item.asname is not None:
                    env.bind(item.asname.name, env.of(item.item))
