"""``convert streaming`` in Streamlit and Gradio: a page shows one output's text as it arrives."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
import libcst.matchers as m

from dspy_live.assistant.convert.awaiting import Plan
from dspy_live.assistant.convert.early_returns import yielded
from dspy_live.assistant.convert.frameworks import handlers
from dspy_live.assistant.convert.importing import add_imports
from dspy_live.assistant.convert.names import reads
from dspy_live.assistant.convert.report import Notes
from dspy_live.assistant.convert.source import Source
from dspy_live.assistant.convert.values import PROGRAMS, Env

_STREAMLIT = '''

def {name}(program, field, **inputs):
    """Run a program, show the text of one output on the page as it arrives, and return the program's result."""
    result = []

    def text():
        for item in dspy_live.streamify(program, async_streaming=False)(**inputs):
            if isinstance(item, dspy_live.StreamToken):
                if item.signature_field_name == field:
                    yield str(item)
            elif isinstance(item, dspy_live.Restart):
                raise RuntimeError("the LM began its answer again; run the program once more")
            elif isinstance(item, dspy.Prediction):
                result.append(item)

    {streamlit}.write_stream(text())
    return result[0]
'''

_GRADIO = '''

async def {name}(program, field, **inputs):
    """Yield the text of one output of a program, longer each time, as it arrives."""
    text = ""
    async for item in dspy_live.streamify(program)(**inputs):
        if isinstance(item, dspy_live.StreamToken) and item.signature_field_name == field:
            text += item
            yield text
        elif isinstance(item, dspy_live.Restart):
            text = ""
'''

_SHOWING = ("write", "markdown", "text", "success", "info")


def stream_on_streamlit(source: Source, notes: Notes) -> cst.Module | None:
    """Return the module with its runs shown by ``st.write_stream``; ``None`` where no run is shown by itself."""
    alias = next((name for name, full in source.imports.table.items() if full == "streamlit"), "")
    name = _free(source, "show_stream")
    change = _Show(source, alias, name)
    module = source.module.visit(change)
    if not alias or not change.lines:
        notes.add(
            "left",
            "No run of a program is shown on the page right after it: show it with st.write_stream by hand, over "
            "dspy_live.streamify(program, async_streaming=False).",
        )
        return None
    for line in change.lines:
        notes.add("changed", "The answer is shown by st.write_stream as it arrives.", line)
    helper = cst.parse_module(_STREAMLIT.format(name=name, streamlit=alias)).body[0]
    return _with_helper(cst.ensure_type(module, cst.Module), helper, name, ["dspy", "dspy_live"])


class _Show(cst.CSTTransformer):
    """Puts the streaming call where a run's output is shown."""

    def __init__(self, source: Source, streamlit: str, helper: str) -> None:
        super().__init__()
        self.source = source
        self.streamlit = streamlit
        self.helper = helper
        self.lines: list[int] = []
        self.envs = [Env(source)]

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.envs.append(self.source.env_of(node))

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self.envs.pop()
        return updated_node

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:
        return False

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        return updated_node.with_changes(body=self._shown(original_node.body, updated_node.body))

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        return updated_node.with_changes(body=self._shown(original_node.body, updated_node.body))

    def _shown(
        self, original: Sequence[cst.BaseStatement], body: Sequence[cst.BaseStatement]
    ) -> list[cst.BaseStatement]:
        """``r = program(…)`` and ``st.write(r.answer)`` in one block become one call that shows and returns."""
        found = list(body)
        for index, statement in enumerate(found):
            target, call = self._run_of(statement)
            if target is None or call is None:
                continue
            shown = next((at for at in range(index + 1, len(found)) if target in reads(found[at])), None)
            where = None if shown is None else self._displayed(found[shown], target)
            if shown is None or where is None:
                continue
            place, field = where
            self.lines.append(self.source.line(original[index]) if index < len(original) else 0)
            streaming = self._call(call, field, target).with_changes(leading_lines=_leading(place))
            replaced = found[shown].deep_replace(place, streaming)
            found[shown] = cst.ensure_type(replaced, cst.BaseStatement)  # type: ignore[type-abstract]
            found[index : index + 1] = _before_run(statement)
            return self._shown(found, found)
        return found

    def _run_of(self, statement: cst.BaseStatement) -> tuple[str | None, cst.Call | None]:
        """Return (name, call) of ``name = program(…)``, also as all of a ``with st.spinner(…)``."""
        if isinstance(statement, cst.With) and isinstance(statement.body, cst.IndentedBlock):
            spins = m.matches(statement.items[0].item, m.Call(func=m.Attribute(attr=m.Name("spinner"))))
            return self._run_of(list(statement.body.body)[-1]) if spins else (None, None)
        pattern = m.SimpleStatementLine(body=[m.Assign(targets=[m.AssignTarget(m.Name())], value=m.Call())])
        if not m.matches(statement, pattern):
            return None, None
        assign = cst.ensure_type(cst.ensure_type(statement, cst.SimpleStatementLine).body[0], cst.Assign)
        call = cst.ensure_type(assign.value, cst.Call)
        value = self.envs[-1].of(call.func)
        if value.kind not in PROGRAMS or value.dspy in ("LM", "Embedder") or any(a.keyword is None for a in call.args):
            return None, None
        return cst.ensure_type(assign.targets[0].target, cst.Name).value, call

    def _displayed(self, statement: cst.BaseStatement, target: str) -> tuple[cst.SimpleStatementLine, str] | None:
        """Return the statement that shows ``target.field``, and the field; it may stand in a ``with`` block."""
        shows = m.Call(
            func=m.Attribute(attr=m.Name(value=m.MatchIfTrue(lambda name: name in _SHOWING))),
            args=[m.Arg(value=m.Attribute(value=m.Name(target)))],
        )
        lines = [statement] if isinstance(statement, cst.SimpleStatementLine) else []
        if isinstance(statement, cst.With) and isinstance(statement.body, cst.IndentedBlock):
            lines = [line for line in statement.body.body if isinstance(line, cst.SimpleStatementLine)]
        first = next((line for line in lines if target in reads(line)), None)
        if first is None or not m.matches(first, m.SimpleStatementLine(body=[m.Expr(shows)])):
            return None
        call = cst.ensure_type(cst.ensure_type(first.body[0], cst.Expr).value, cst.Call)
        return first, cst.ensure_type(call.args[0].value, cst.Attribute).attr.value

    def _call(self, call: cst.Call, field: str, target: str) -> cst.SimpleStatementLine:
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        first = [cst.Arg(call.func, comma=comma), cst.Arg(cst.SimpleString(f'"{field}"'), comma=comma)]
        streaming = call.with_changes(func=cst.Name(self.helper), args=[*first, *call.args])
        return cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(cst.Name(target))], streaming)])


def _before_run(statement: cst.BaseStatement) -> list[cst.BaseStatement]:
    """Return what a spinner's block does before it runs the program: it stays, without the spinner."""
    if not isinstance(statement, cst.With):
        return []
    first, *rest = [cst.ensure_type(line, cst.BaseStatement) for line in statement.body.body]  # type: ignore[type-abstract]
    return [first.with_changes(leading_lines=statement.leading_lines), *rest][:-1]


def _leading(line: cst.SimpleStatementLine) -> Sequence[cst.EmptyLine]:
    return line.leading_lines


def stream_on_gradio(source: Source, notes: Notes) -> cst.Module | None:
    """Return the module with Gradio's handlers yielding their text; ``None`` where none returns a program's output."""
    name = _free(source, "stream_text")
    module = source.module
    found = handlers(source)
    for handler, function in found.items():
        streaming = _yielding(source, function, name)
        line = source.line(function)
        if streaming is not None:
            module = cst.ensure_type(module.deep_replace(function, streaming), cst.Module)
            notes.add("changed", f"{handler}() yields the text as it arrives.", line)
        elif Plan(source).try_body(function, None).awaited:
            said = (
                f"{handler}() stays as it is: a handler streams where its only run of a program is the one whose "
                "output it returns in its last line."
            )
            notes.add("left", said, line)
    if module is source.module:
        if not found:
            notes.add("left", "No function of the file is handed to Gradio, so nothing streams.")
        return None
    return _with_helper(module, cst.parse_module(_GRADIO.format(name=name)).body[0], name, ["dspy_live"])


def _yielding(source: Source, function: cst.FunctionDef, helper: str) -> cst.FunctionDef | None:
    body = _with_returned_call(function)
    if not isinstance(body, cst.IndentedBlock) or Plan(source).try_body(function, None).awaited != 1:
        return None
    last = body.body[-1]
    pattern = m.SimpleStatementLine(body=[m.Return(value=m.Attribute(value=m.Call()))])
    if not m.matches(last, pattern):
        return None
    returned = cst.ensure_type(cst.ensure_type(last, cst.SimpleStatementLine).body[0], cst.Return)
    attribute = cst.ensure_type(returned.value, cst.Attribute)
    call = cst.ensure_type(attribute.value, cst.Call)
    if source.env_of(function).of(call.func).kind not in PROGRAMS or any(arg.keyword is None for arg in call.args):
        return None
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    first = [cst.Arg(call.func, comma=comma), cst.Arg(cst.SimpleString(f'"{attribute.attr.value}"'), comma=comma)]
    stream = call.with_changes(func=cst.Name(helper), args=[*first, *call.args])
    loop = cst.ensure_type(cst.parse_statement("async for text in x:\n    yield text\n"), cst.For)
    loop = loop.with_changes(iter=stream, leading_lines=cst.ensure_type(last, cst.SimpleStatementLine).leading_lines)
    return function.with_changes(
        asynchronous=cst.Asynchronous(), returns=None, body=body.with_changes(body=[*yielded(body.body[:-1]), loop])
    )


def _with_returned_call(function: cst.FunctionDef) -> cst.BaseSuite:
    """Return a body in which ``r = program(…)`` and ``return r.field`` at its end are one statement."""
    body = function.body
    run = m.SimpleStatementLine(body=[m.Assign(targets=[m.AssignTarget(target=m.Name())], value=m.Call())])
    end = m.SimpleStatementLine(body=[m.Return(value=m.Attribute(value=m.Name()))])
    if len(body.body) < 2 or not m.matches(body.body[-2], run) or not m.matches(body.body[-1], end):
        return body
    before, last = (cst.ensure_type(each, cst.SimpleStatementLine) for each in body.body[-2:])
    assign = cst.ensure_type(before.body[0], cst.Assign)
    target = cst.ensure_type(assign.targets[0].target, cst.Name).value
    attribute = cst.ensure_type(cst.ensure_type(last.body[0], cst.Return).value, cst.Attribute)
    if cst.ensure_type(attribute.value, cst.Name).value != target:
        return body
    returned = cst.Return(attribute.with_changes(value=assign.value))
    return body.with_changes(body=[*body.body[:-2], before.with_changes(body=[returned])])


def _free(source: Source, name: str) -> str:
    return name if name not in reads(source.module) else f"{name}_live"


def _with_helper(module: cst.Module, helper: cst.CSTNode, name: str, imports: Sequence[str]) -> cst.Module:
    module = add_imports(module, imports)
    body = list(module.body)
    at = next((index for index, node in enumerate(body) if name in reads(node)), len(body))
    blank = [cst.EmptyLine(indent=False)] * 2
    new = cst.ensure_type(helper, cst.FunctionDef).with_changes(leading_lines=blank)
    following = body[at]
    comments = [line for line in getattr(following, "leading_lines", ()) if line.comment is not None]
    body[at] = following.with_changes(leading_lines=[*blank, *comments])
    return module.with_changes(body=[*body[:at], new, *body[at:]])
