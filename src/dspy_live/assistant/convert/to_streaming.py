"""``convert streaming``: the code that runs a program prints its text as it arrives."""

from __future__ import annotations

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert import known
from dspy_live.assistant.convert.awaiting import Plan
from dspy_live.assistant.convert.candidates import choose
from dspy_live.assistant.convert.frameworks import framework_of, note_views
from dspy_live.assistant.convert.importing import add_imports
from dspy_live.assistant.convert.main_part import guard_body, new_guard
from dspy_live.assistant.convert.names import dotted, reads
from dspy_live.assistant.convert.pages import stream_on_gradio, stream_on_streamlit
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import Source
from dspy_live.assistant.convert.swap import swap, uses
from dspy_live.assistant.convert.to_async import run_asynchronously
from dspy_live.assistant.convert.twins import is_route
from dspy_live.assistant.convert.values import PROGRAMS, Env, Value

_HELPER = '''

async def {name}(program, *args, **inputs):
    """Run a program, print its text as it arrives, field by field, and return its result."""
    shown, result = None, None
    async for item in dspy_live.streamify(program)(*args, **inputs):
        if isinstance(item, dspy_live.StreamToken):
            field = (item.predict_name, item.signature_field_name, item.lm_call)
            if field != shown:
                print(f"\\n[{{item.signature_field_name}}] ", end="")
                shown = field
            print(item, end="", flush=True)
        elif isinstance(item, dspy_live.Restart):
            print("\\n[starting again]", end="")
            shown = None
        else:
            result = item  # the last item is the program's own result
    print()
    return result
'''


def to_streaming(text: str, notes: Notes, program: str | None = None) -> str:
    """Return the source with its running part streaming. A file that runs nothing gets an example run.

    Raises:
        NoProgram, SeveralPrograms: nothing is run in the file and it is not clear what to run.
    """
    source = Source(text)
    if uses(source, "dspy_live.streamify"):
        notes.add("left", "The file streams with dspy_live.streamify already.")
        return text
    replaced = _replace_import(source, notes)
    if replaced is not None:
        return replaced
    framework = framework_of(source)
    if framework in ("streamlit", "gradio"):
        page = (stream_on_streamlit if framework == "streamlit" else stream_on_gradio)(source, notes)
        return text if page is None else page.code
    if framework == "flask":
        note_views(source, notes)
        return text
    if routes := [function for function in source.functions.values() if is_route(function)]:
        plan = Plan(source)
        for route in [each for each in routes if plan.try_body(each, None).awaited] or routes:
            said = f"The handler {route.name.value}() answers over HTTP: `convert fastapi` writes routes that stream."
            notes.add("left", said, source.line(route))
        return text
    name = next(n for n in ("stream", "stream_program", "stream_to_terminal") if n not in reads(source.module))

    def special(env: Env, value: Value, call: cst.Call) -> cst.BaseExpression | None:
        if value.kind not in PROGRAMS or value.dspy in ("LM", "Embedder"):
            return None
        if env.cls is not None and env.source.is_program(env.cls):
            return None
        if program is not None and program not in (value.cls, cst.Module([]).code_for_node(call.func)):
            return None
        return _streamed(call, name)

    new = run_asynchronously(text, notes, special, original=text)
    if name not in reads(cst.parse_module(new)):
        if any(note.level == "left" for note in notes.items):
            return text
        if _serves(source):
            notes.add("left", "The file starts a server: `convert fastapi` writes routes that stream, in a new file.")
            return text
        new = _with_example(source, notes, name, program)
    module = add_imports(cst.parse_module(new).visit(_PrintedOnce(name)), ["asyncio", "dspy_live"])
    notes.add("changed", f"{name}() prints each field's text as it arrives; the program itself is not changed.")
    return _insert_before_use(module, cst.parse_module(_HELPER.format(name=name)).body[0], name).code


def _replace_import(source: Source, notes: Notes) -> str | None:
    """A file that streams with DSPy's own function only needs ours in its place."""
    module, swapped = swap(source.module, source.imports, frozenset({"streamify", "StreamListener"}))
    if "streamify" not in swapped:
        return None
    notes.add(
        "changed", "The file streamed with DSPy's own streamify; dspy_live's takes its place, with the same arguments."
    )
    return add_imports(module, ["dspy_live"]).code


def _serves(source: Source) -> bool:
    calls = m.findall(source.module, m.Call())
    return any(isinstance(call, cst.Call) and dotted(call.func) in known.SERVERS for call in calls)


def _streamed(call: cst.Call, name: str) -> cst.Await:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")) if call.args else cst.MaybeSentinel.DEFAULT
    args = [cst.Arg(call.func, comma=comma), *call.args]
    inner = call.with_changes(func=cst.Name(name), args=args, lpar=[], rpar=[])
    return cst.Await(inner, lpar=call.lpar, rpar=call.rpar)


def _with_example(source: Source, notes: Notes, name: str, program: str | None) -> str:
    candidate = choose(source, program)
    arguments = candidate.sample_call()
    runs = "What the file runs is not seen to call a program" if guard_body(source.guard()) else "The file runs nothing"
    notes.add("advice", f"{runs}, so an example run of {candidate.name} was added: put your inputs there.")
    if not candidate.buildable:
        notes.add("advice", f"{candidate.name} takes arguments when it is made: fill them in where it is made.")
    call = f"{name}({candidate.expression}{', ' + arguments if arguments else ''})"
    return append_to_guard(source, cst.parse_statement(f"asyncio.run({call})\n")).code


def append_to_guard(source: Source, statement: cst.BaseStatement) -> cst.Module:
    """Return the module with a statement at the end of its ``if __name__`` block, which is made if need be."""
    guard = source.guard()
    if guard is None or not isinstance(guard.body, cst.IndentedBlock):
        return source.module.with_changes(body=[*source.module.body, new_guard([statement])])
    changed = guard.with_changes(body=guard.body.with_changes(body=[*guard.body.body, statement]))
    return source.module.with_changes(body=[changed if node is guard else node for node in source.module.body])


class _PrintedOnce(cst.CSTTransformer):
    """Takes away the printing of an output right after it was streamed: its text is on the terminal already."""

    def __init__(self, helper: str) -> None:
        super().__init__()
        self.run = m.Await(m.Call(func=m.Name(helper)))

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        return updated_node.with_changes(body=self._once(list(updated_node.body)))

    def _once(self, body: list[cst.BaseStatement]) -> list[cst.BaseStatement]:
        found: list[cst.BaseStatement] = []
        for statement in body:
            printed = self._printed(statement)
            if printed is not None and m.matches(printed, self.run):
                expression = cst.Expr(printed.with_changes(lpar=[], rpar=[]))
                found.append(cst.ensure_type(statement, cst.SimpleStatementLine).with_changes(body=[expression]))
            elif not (printed is not None and found and self._assigns(found[-1], printed)):
                found.append(statement)
        return found

    def _printed(self, statement: cst.BaseStatement) -> cst.BaseExpression | None:
        """Return the thing whose output a statement prints, and nothing else: ``x`` of ``print(x.answer)``."""
        pattern = m.SimpleStatementLine(
            body=[m.Expr(m.Call(func=m.Name("print"), args=[m.Arg(value=m.Attribute(), keyword=None)]))]
        )
        if not m.matches(statement, pattern):
            return None
        line = cst.ensure_type(statement, cst.SimpleStatementLine)
        call = cst.ensure_type(cst.ensure_type(line.body[0], cst.Expr).value, cst.Call)
        return cst.ensure_type(call.args[0].value, cst.Attribute).value

    def _assigns(self, statement: cst.BaseStatement, printed: cst.BaseExpression) -> bool:
        if not isinstance(printed, cst.Name):
            return False
        target = m.AssignTarget(m.Name(printed.value))
        return m.matches(statement, m.SimpleStatementLine(body=[m.Assign(targets=[target], value=self.run)]))


def _insert_before_use(module: cst.Module, helper: cst.BaseStatement, name: str) -> cst.Module:
    body = list(module.body)
    at = next((i for i, node in enumerate(body) if name in reads(node)), len(body))
    helper = helper.with_changes(leading_lines=[cst.EmptyLine(indent=False)] * 2)
    following = body[at]
    lines = list(getattr(following, "leading_lines", ()))
    while lines and lines[0].comment is None:
        lines.pop(0)
    body[at] = following.with_changes(leading_lines=[*[cst.EmptyLine(indent=False)] * 2, *lines])
    return module.with_changes(body=[*body[:at], helper, *body[at:]])
