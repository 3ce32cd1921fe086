"""The programs of a file: the expression that makes each, and its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.names import dotted
from dspy_live.assistant.convert.report import NoProgram, SeveralPrograms
from dspy_live.assistant.convert.source import ClassFacts, Source, assignments
from dspy_live.assistant.convert.values import PROGRAMS, Env

_SAMPLES = {
    "int": "3",
    "float": "0.5",
    "bool": "True",
    "list": '["one", "two"]',
    "dict": '{"key": "value"}',
    "list[int]": "[1, 2, 3]",
    "list[float]": "[0.5, 1.5]",
    "list[dict]": '[{"key": "value"}]',
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program of the file.

    Args:
        name: what a user calls it: a variable or a class.
        expression: how code gets it: ``rag`` or ``RAG()``.
        inputs: its inputs as (name, annotation); ``None`` when they can't be read from the file.
        instance: true for a variable that holds a program.
        buildable: false for a class whose constructor needs arguments.
    """

    name: str
    expression: str
    inputs: tuple[tuple[str, str], ...] | None
    instance: bool
    buildable: bool = True

    def sample_call(self) -> str:
        """Return example arguments: ``question="What is DSPy?"``."""
        return ", ".join(f"{name}={_sample(name, annotation)}" for name, annotation in self.inputs or ())


def candidates(source: Source) -> list[Candidate]:
    """Return the file's programs: variables first, then classes that nothing in the file uses."""
    found: list[Candidate] = []
    classes_of_instances: set[str] = set()
    for name, value in source.variables.items():
        if value.kind in PROGRAMS and value.dspy not in ("LM", "Embedder"):
            facts = source.classes.get(value.cls)
            inputs = inputs_of(source, facts) if facts else _inputs_of_builtin(source, name)
            found.append(Candidate(name, name, inputs, instance=True))
            classes_of_instances.add(value.cls)
    used = {value.cls for facts in source.classes.values() for value in facts.attributes.values()}
    used |= {value.element.cls for f in source.classes.values() for value in f.attributes.values() if value.element}
    bases = {dotted(base) for facts in source.classes.values() for base in facts.bases}
    for facts in source.programs():
        if facts.name in classes_of_instances | used | bases:
            continue
        buildable = not _required(source.method(facts, "__init__"))
        found.append(Candidate(facts.name, f"{facts.name}()", inputs_of(source, facts), False, buildable))
    return found


def choose(source: Source, program: str | None = None) -> Candidate:
    """Return the one program that is meant.

    Raises:
        NoProgram: the file has none, or none of that name.
        SeveralPrograms: there are several and none was named.
    """
    found = candidates(source)
    if program is not None:
        for candidate in [*found, *_hidden(source)]:
            if program in (candidate.name, candidate.expression):
                return candidate
        names = ", ".join(candidate.name for candidate in found) or "none"
        raise NoProgram(f"The file has no program named {program!r}. It has: {names}.")
    if not found and makes_programs(source):
        raise NoProgram(
            "Nothing in the file runs a program at its top level, and no program in it can be run by itself: they "
            'are made inside functions or classes. Call one of them under `if __name__ == "__main__":`.'
        )
    if not found:
        raise NoProgram(no_program_text(source))
    buildable = [candidate for candidate in found if candidate.buildable] or found
    if len(buildable) > 1:
        several = [candidate.name for candidate in buildable]
        raise SeveralPrograms(f"The file has several programs: {', '.join(several)}. Name the one you mean.", several)
    return buildable[0]


def makes_programs(source: Source) -> bool:
    """Tell whether the file makes a module anywhere, in a plain class or a function too."""
    names = (known.NATIVE | known.SYNC_MODULES) - {"LM", "Embedder"}
    calls = m.findall(source.module, m.Call())
    return any(isinstance(c, cst.Call) and known.short(source.imports.qualified(c.func)) in names for c in calls)


def no_program_text(source: Source) -> str:
    """Say that a file has no program, and what one looks like."""
    if "dspy" not in {name.partition(".")[0] for name in source.imports.table.values()}:
        return "The file does not import dspy, so there is no DSPy program in it."
    return (
        "The file has no DSPy program: no class that inherits from dspy.Module, and no variable that holds one, "
        'such as qa = dspy.Predict("question -> answer").'
    )


def _hidden(source: Source) -> list[Candidate]:
    return [
        Candidate(f.name, f"{f.name}()", inputs_of(source, f), False, not _required(source.method(f, "__init__")))
        for f in source.programs()
    ]


def _required(function: cst.FunctionDef | None) -> bool:
    if function is None:
        return False
    params = [*function.params.posonly_params, *function.params.params][1:]
    keyword = function.params.kwonly_params
    return any(param.default is None for param in [*params, *keyword])


def inputs_of(source: Source, facts: ClassFacts) -> tuple[tuple[str, str], ...] | None:
    """Return a program's inputs, from the parameters of its ``forward``."""
    forward = source.method(facts, "forward") or source.method(facts, "aforward")
    if forward is None or forward.params.star_kwarg is not None:
        return None
    params = [*forward.params.posonly_params, *forward.params.params][1:]
    required = [param for param in [*params, *forward.params.kwonly_params] if param.default is None]
    return tuple((param.name.value, _annotation(param.annotation)) for param in required)


def _inputs_of_builtin(source: Source, name: str) -> tuple[tuple[str, str], ...] | None:
    for node in source.module.body:
        for target, _ in assignments([node], Env(source)):
            if isinstance(target, cst.Name) and target.value == name:
                for call in m.findall(node, m.Call()):
                    if isinstance(call, cst.Call) and call.args and (found := _signature(source, call.args[0].value)):
                        return found
    return None


def _signature(source: Source, node: cst.BaseExpression) -> tuple[tuple[str, str], ...] | None:
    if isinstance(node, cst.SimpleString) and "->" in str(node.evaluated_value):
        return tuple(_split_field(part) for part in _commas(str(node.evaluated_value).partition("->")[0]))
    facts = source.classes.get(dotted(node) or "")
    if facts is None:
        return None
    fields: list[tuple[str, str]] = []
    for each in m.findall(facts.node.body, m.AnnAssign(value=m.Call())):
        if not (isinstance(each, cst.AnnAssign) and isinstance(each.value, cst.Call)):
            continue
        if isinstance(each.target, cst.Name) and (dotted(each.value.func) or "").endswith("InputField"):
            fields.append((each.target.value, _annotation(each.annotation)))
    return tuple(fields) or None


def _commas(text: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _split_field(text: str) -> tuple[str, str]:
    name, _, annotation = text.partition(":")
    return name.strip(), annotation.strip() or "str"


def _annotation(node: cst.Annotation | None) -> str:
    return cst.Module([]).code_for_node(node.annotation).strip("\"' ") if node is not None else "str"


def _sample(name: str, annotation: str) -> str:
    plain = annotation.replace(" ", "").replace("List[", "list[").replace("Dict[", "dict[")
    plain = plain.removesuffix("|None").removeprefix("Optional[").removesuffix("]") if "Optional[" in plain else plain
    if plain in _SAMPLES:
        return _SAMPLES[plain]
    for outer in ("list", "dict"):
        if plain.startswith(f"{outer}["):
            return _SAMPLES[outer]
    if plain in ("str", "Any", "object"):
        return (
            '"What is DSPy?"' if "question" in name or "query" in name else f'"an example of {name.replace("_", " ")}"'
        )
    return "None"
