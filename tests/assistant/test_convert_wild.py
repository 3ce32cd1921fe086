"""Conversions of programs as people write them: many files, any file name, web frameworks."""

# ruff: noqa: E501  (programs as one-line strings read better in one line)

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import dspy
import pytest
from fastapi import FastAPI, Header, HTTPException

import dspy_live
from dspy_live.assistant.convert import KINDS, Conversion, ConvertError, convert
from dspy_live.assistant.packages import package_of
from dspy_live.assistant.proof import prove
from dspy_live.assistant.route_trial import ask_routes

SCRIPT = 'import dspy\n\nqa = dspy.Predict("question -> answer")\nprint(qa(question="Hm?").answer)\n'

BASE = """import dspy


class Base(dspy.Module):
    def __init__(self):
        super().__init__()
        self.step = dspy.Predict("question -> answer")

    def run(self, question):
        return self.step(question=question)
"""

CHILD = """import dspy
from base import Base


class RAG(Base):
    def __init__(self):
        super().__init__()
        self.respond = dspy.ChainOfThought("context, question -> answer")

    def forward(self, question):
        draft = self.run(question)
        return self.respond(context=draft.answer, question=question)
"""


def texts(conversion: Conversion, level: str) -> list[str]:
    return [f"{note.line}: {note.text}" for note in conversion.notes if note.level == level]


LIFESPAN = """from contextlib import asynccontextmanager

import dspy
from fastapi import FastAPI, Request

programs = {}
plain = None


@asynccontextmanager
async def lifespan(app: FastAPI):
    global plain
    dspy.configure(lm=dspy.LM("openai/gpt-4o-mini"))
    programs["qa"] = dspy.ChainOfThought("question -> answer")
    programs["names"] = ["qa"]
    app.state.rag = dspy.Predict("question -> answer")
    plain = dspy.Predict("question -> answer")
    yield
    programs.clear()
    plain = None


app = FastAPI(lifespan=lifespan)


@app.post("/ask")
def ask(question: str):
    return programs["qa"](question=question).answer


@app.post("/many")
def many(questions: list[str]):
    return [ask(question) for question in questions]


@app.get("/rag")
def rag(question: str, request: Request):
    return request.app.state.rag(question=question).answer


@app.get("/plain")
def plain_one(question: str):
    return plain(question=question).answer


@app.get("/names")
def names():
    return programs["names"]
"""


def test_routes_await_programs_that_the_lifespan_has_made() -> None:
    """Their programs stand in a dict, in a global or in app.state: the routes were left as they were, without a word."""
    conversion = convert("async", LIFESPAN, file="01-api.py")
    for line in (
        'return (await programs["qa"].acall(question=question)).answer',
        "return [await ask(question) for question in questions]",
        "return (await request.app.state.rag.acall(question=question)).answer",
        "return (await plain.acall(question=question)).answer",
    ):
        assert line in conversion.new
    assert "\ndef names():" in conversion.new
    assert texts(conversion, "left") == []
    assert convert("async", conversion.new).new == conversion.new


def test_the_routes_of_an_app_are_asked_before_the_conversion_is_shown(tmp_path: Path) -> None:
    """Such a file was only loaded: its programs are made at the app's start, and its routes wait for requests."""
    proof = prove(convert("async", LIFESPAN, file="app.py"), tmp_path)
    assert proof.verdict.startswith("It ran app with a request for ask(), many(), rag(), plain_one() against the")
    assert proof.outcome.lm_calls == 2, "a ChainOfThought and a Predict; the other questions are the same"
    for asked in ("POST /ask: 200", "POST /many: 200", "GET /rag: 200", "GET /plain: 200"):
        assert asked in proof.outcome.output


def test_a_route_that_fails_ends_the_trial(capsys: pytest.CaptureFixture[str]) -> None:
    app = FastAPI()

    @app.post("/good/{name}")
    async def good(name: str, numbers: list[int], X_Team: Annotated[str, Header()], deep: bool = False) -> str:  # noqa: N803
        return f"{name} {sum(numbers)} {X_Team}"

    @app.get("/caught")
    async def caught() -> None:
        raise HTTPException(500, "object coroutine has no attribute 'answer'")

    @app.get("/raised")
    async def raised() -> None:
        raise AttributeError("object coroutine has no attribute 'answer'")

    asyncio.run(ask_routes(app, ["good"]))
    assert capsys.readouterr().out == 'POST /good/{name}: 200 "text 1 text"\n'
    with pytest.raises(RuntimeError, match="GET /caught answered 500"):
        asyncio.run(ask_routes(app, ["good", "caught"]))
    with pytest.raises(AttributeError, match="no attribute"):
        asyncio.run(ask_routes(app, ["good", "raised"]))


def test_a_route_that_other_code_calls_stays_a_function() -> None:
    text = LIFESPAN + '\n\ndef warm_up():\n    print(ask("Hm?"))\n'
    conversion = convert("async", text)
    assert "\ndef ask(question: str):" in conversion.new
    assert "asyncio.to_thread(ask" in conversion.new
    assert "The handler ask() stays synchronous, since warm_up() calls it" in "".join(texts(conversion, "left"))


def test_a_script_with_arguments_hands_its_program_on() -> None:
    text = """import argparse
import sys

import dspy


def build(model: str) -> dspy.Module:
    return dspy.ChainOfThought("text -> summary")


def summarize(program, path):
    return program(text=path).summary


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*")
    args = parser.parse_args(argv)
    program = build("x")
    for path in args.files:
        print(summarize(program, path))


if __name__ == "__main__":
    sys.exit(main())
"""
    new = convert("async", text).new
    assert "return (await dspy_live.asyncify(program)(text=path)).summary" in new
    assert "print(await summarize_async(program, path))" in new
    assert "sys.exit(asyncio.run(main()))" in new


class TestOtherFiles:
    """Calls whose code is somewhere else, which may wait."""

    def test_a_helper_of_a_base_class_in_another_file_keeps_the_module_in_its_thread(self, tmp_path: Path) -> None:
        """Its aforward called the helper, the helper called its predictor, and the loop stood still for 6 s."""
        (tmp_path / "base.py").write_text(BASE)
        for folder in (tmp_path, None):
            conversion = convert("async", CHILD, file="rag.py", folder=folder)
            assert "aforward" not in conversion.new
            (said,) = [text for text in texts(conversion, "left") if "RAG.forward()" in text]
            assert "self.run() comes from Base, of another file, and may call a module (line 11)" in said
            assert "awaited through a thread" in said

    def test_a_base_class_that_only_computes_is_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / "base.py").write_text("import re\n\n\nclass Base:\n    def run(self, text):\n        return text\n")
        assert "async def aforward" in convert("async", CHILD, file="rag.py", folder=tmp_path).new

    def test_methods_of_every_module_are_known_to_ask_no_lm(self) -> None:
        text = CHILD.replace("draft = self.run(question)", "self.named_predictors()").replace("draft.answer", "''")
        assert "async def aforward" in convert("async", text).new

    def test_a_function_of_another_file_goes_to_a_thread_unless_it_only_computes(self, tmp_path: Path) -> None:
        (tmp_path / "helpers.py").write_text(
            'import dspy\n\np = dspy.Predict("a -> b")\n\n\ndef ask(x):\n    return p(a=x).b\n'
        )
        (tmp_path / "clean.py").write_text("import re\n\n\ndef tidy(x):\n    return x\n")
        text = CHILD.replace("from base import Base", "from clean import tidy\nfrom helpers import ask")
        text = text.replace("(Base)", "(dspy.Module)").replace(
            "draft = self.run(question)", "draft = ask(tidy(question))"
        )
        new = convert("async", text.replace("draft.answer", "draft"), file="rag.py", folder=tmp_path).new
        assert "draft = await asyncio.to_thread(ask, tidy(question))" in new

    def test_a_module_of_another_file_is_awaited_as_a_module(self, tmp_path: Path) -> None:
        (tmp_path / "base.py").write_text(BASE)
        text = (
            "from base import Base\n\nbase = Base()\n\n\nasync def ask(question):\n    return base(question=question)\n"
        )
        new = convert("async", text, file="app.py", folder=tmp_path).new
        assert "return await dspy_live.asyncify(base)(question=question)" in new

    def test_a_librarys_call_is_named_with_its_line(self) -> None:
        text = CHILD.replace("from base import Base", "import chromadb").replace("(Base)", "(dspy.Module)")
        text = text.replace("super().__init__()", "super().__init__()\n        self.db = chromadb.Client()")
        text = text.replace("self.run(question)", "self.db.query(question)")
        conversion = convert("async", text)
        assert "async def aforward" in conversion.new
        assert any("12: self.db.query() is a library's" in said for said in texts(conversion, "advice"))


class TestNames:
    """Files that no import statement can name, and files of packages."""

    @pytest.mark.parametrize("kind", ["fastapi", "tests"])
    @pytest.mark.parametrize("name", ["01_rag.py", "my-rag.py", "class.py"])
    def test_any_file_name_is_imported(self, kind: str, name: str) -> None:
        conversion = convert(kind, SCRIPT, file=name)
        ast.parse(conversion.new)
        stem = name.removesuffix(".py")
        assert f'qa = importlib.import_module("{stem}").qa' in conversion.new
        plain = stem.replace("-", "_")
        assert conversion.new_file == (f"{plain}_api.py" if kind == "fastapi" else f"test_{plain}.py")

    def test_a_name_with_two_dots_is_refused(self) -> None:
        with pytest.raises(ConvertError, match="rename the file"):
            convert("fastapi", SCRIPT, file="rag.v2.py")

    def test_what_is_written_around_such_a_file_runs(self, tmp_path: Path) -> None:
        (tmp_path / "01_rag.py").write_text(SCRIPT)
        proof = prove(convert("fastapi", SCRIPT, file="01_rag.py", folder=tmp_path), tmp_path)
        assert proof.ok, proof.outcome.error

    def test_a_file_of_a_package_is_run_as_its_module(self, tmp_path: Path) -> None:
        place = tmp_path / "shop"
        place.mkdir()
        (place / "settings.py").write_text('TOPIC = "a topic"\n')
        text = SCRIPT.replace("import dspy\n", "import dspy\n\nfrom .settings import TOPIC\n").replace('"Hm?"', "TOPIC")
        (place / "qa.py").write_text(text)
        converted = prove(convert("async", text, file="qa.py", folder=place), place)
        assert converted.ok, converted.outcome.error
        assert converted.outcome.lm_calls == 1
        served = convert("fastapi", text, file="qa.py", folder=place)
        assert "from shop.qa import qa" in served.new
        assert any("uvicorn shop.qa_api:app" in said for said in texts(served, "advice"))
        assert prove(served, place).ok

    def test_packages(self, tmp_path: Path) -> None:
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        assert package_of(inner, "import os\n") == (inner, "")
        assert package_of(inner, "from ..x import y\n") == (tmp_path, "a.b")
        (inner / "__init__.py").touch()
        assert package_of(inner, "import os\n") == (inner.parent, "b")
        (inner / "near.py").touch()
        assert package_of(inner, "import near\n") == (inner, ""), "it is run as a script"


class TestImportEffects:
    """What else happens when another file imports the program."""

    @pytest.mark.parametrize("kind", ["fastapi", "tests", "serving"])
    @pytest.mark.parametrize("act", ['print(qa(question="Hm?").answer)', "name = input()", "app.run()"])
    def test_it_is_warned_of_with_its_line(self, kind: str, act: str) -> None:
        text = f'import dspy\n\nqa = dspy.Predict("question -> answer")\n{act}\n'
        assert any(
            "4: " in said and "an import runs its top level" in said for said in texts(convert(kind, text), "advice")
        )

    def test_a_file_that_only_defines_is_not_warned_of(self) -> None:
        text = 'import dspy\n\nqa = dspy.Predict("question -> answer")\n\nif __name__ == "__main__":\n    print(qa(question="a"))\n'
        assert not any("top level" in said for said in texts(convert("fastapi", text), "advice"))

    def test_an_lm_that_a_function_configures_is_named(self) -> None:
        text = SCRIPT.replace("print(qa", 'def main():\n    dspy.configure(lm=dspy.LM("openai/x"))\n    print(qa')
        assert any(
            "configured in main(), which an import does not call" in s
            for s in texts(convert("fastapi", text), "advice")
        )

    def test_the_lifespan_that_configures_the_lm_is_the_new_apps_too(self) -> None:
        text = (
            "from contextlib import asynccontextmanager\n\nimport dspy\nfrom fastapi import FastAPI\n\n\n"
            '@asynccontextmanager\nasync def lifespan(app):\n    dspy.configure(lm=dspy.LM("openai/x"))\n    yield\n\n\n'
            'app = FastAPI(lifespan=lifespan)\nqa = dspy.Predict("question -> answer")\n'
        )
        new = convert("fastapi", text, file="shop.py").new
        assert "from shop import lifespan, qa" in new
        assert 'app = FastAPI(title="qa", lifespan=lifespan)' in new


STREAMLIT = """import dspy
import streamlit as st

rag = dspy.ChainOfThought("question -> answer")

if prompt := st.chat_input("Ask"):
    with st.chat_message("user"):
        st.markdown(prompt)

    with st.spinner("Thinking"):
        response = rag(question=prompt)

    with st.chat_message("assistant"):
        st.markdown(response.answer)
    st.session_state["last"] = response.answer
"""

GRADIO = """import dspy
import gradio as gr

qa = dspy.ChainOfThought("question -> answer")


def respond(message, history):
    return qa(question=message).answer


demo = gr.ChatInterface(fn=respond)

if __name__ == "__main__":
    demo.launch()
"""

FLASK = """import dspy
from flask import Flask, request

app = Flask(__name__)
qa = dspy.Predict("question -> answer")


@app.post("/ask")
def ask():
    return qa(question=request.json["question"]).answer
"""


class Anything:
    """Stands for a module of which everything may be called, used as a context, or decorated with."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return Anything()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def run(text: str, library: str, stand: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a converted file with a stand-in for a library that is not installed here."""
    module = ModuleType(library)
    module.__dict__.update({"__getattr__": lambda name: Anything(), **stand})
    monkeypatch.setitem(sys.modules, library, module)
    namespace: dict[str, Any] = {"__name__": "a_page"}
    with dspy.context(lm=dspy_live.sim_lm(length=12)):
        exec(compile(text, "page.py", "exec"), namespace)
    return namespace


class TestFrameworks:
    """Streamlit, Gradio, Flask, FastAPI."""

    def test_streamlit_shows_the_answer_as_it_arrives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shown: list[list[str]] = []
        state: dict[str, str] = {}
        new = convert("streaming", STREAMLIT).new
        assert (
            '    with st.chat_message("assistant"):\n        response = show_stream(rag, "answer", question=prompt)\n'
            in new
        )
        assert "spinner" not in new, "nobody waits before the first word"
        stand = {
            "chat_input": lambda _: "Why?",
            "write_stream": lambda text: shown.append(list(text)),
            "session_state": state,
        }
        run(new, "streamlit", stand, monkeypatch)
        (words,) = shown
        assert len(words) > 3
        assert "".join(words) == state["last"]

    def test_what_a_spinner_does_before_the_run_stays(self) -> None:
        text = STREAMLIT.replace(
            "        response = rag", "        cot = dspy.ChainOfThought('question -> answer')\n        response = cot"
        )
        text = text.replace(
            '    with st.chat_message("assistant"):\n        st.markdown', '    st.subheader("Answer")\n    st.write'
        )
        new = convert("streaming", text).new
        made = "    cot = dspy.ChainOfThought('question -> answer')\n"
        assert (
            f'{made}\n    st.subheader("Answer")\n    response = show_stream(cot, "answer", question=prompt)\n' in new
        )
        assert "spinner" not in new

    def test_streamlit_is_not_wrapped_in_a_main_of_ours(self) -> None:
        conversion = convert("async", STREAMLIT)
        assert "asyncio" not in conversion.new
        assert any("Streamlit runs the script" in said for said in texts(conversion, "left"))

    def test_what_is_not_shown_at_once_is_left(self) -> None:
        text = STREAMLIT.replace("        st.markdown(response.answer)\n", "        st.json(response.toDict())\n")
        conversion = convert("streaming", text)
        assert not conversion.changed
        assert any("by hand" in said for said in texts(conversion, "left"))

    def test_gradio_gets_a_coroutine_function(self) -> None:
        new = convert("async", GRADIO).new
        assert "async def respond(message, history):\n    return (await qa.acall(question=message)).answer" in new
        assert "def respond_async" not in new
        assert new.endswith('if __name__ == "__main__":\n    demo.launch()\n')

    def test_gradio_streams_what_is_returned_in_two_lines(self) -> None:
        """The commonest form, `result = qa(…)` and `return result.answer`, did not stream."""
        text = GRADIO.replace(
            "return qa(question=message).answer", "result = qa(question=message)\n    return result.answer"
        )
        assert convert("streaming", text).new == convert("streaming", GRADIO).new

    def test_gradio_says_which_function_does_not_stream(self) -> None:
        text = GRADIO.replace("return qa(question=message).answer", "return qa(question=message).answer, 'done'")
        conversion = convert("streaming", text)
        assert not conversion.changed
        (said,) = texts(conversion, "left")
        assert said.startswith(
            "7: respond() stays as it is: a handler streams where its only run of a program is the one"
        )

    def test_gradio_streams_although_the_handler_may_return_early(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`if not message: return "…"` is in most handlers; in a generator it has to be a yield and a return."""
        early = (
            "if not message:\n        return 'Write something'\n    if len(message) > 9: return 'Too long'\n"
            "    def inner():\n        return 1\n    return qa(question=message).answer"
        )
        text = GRADIO.replace("return qa(question=message).answer", early)
        new = convert("streaming", text).new
        assert "    if not message:\n        yield 'Write something'\n        return\n" in new
        assert "        return 1\n" in new, "an inner function returns as it did"
        page = run(new, "gradio", {}, monkeypatch)

        async def texts_of(message: str) -> list[str]:
            with dspy.context(lm=dspy_live.sim_lm(length=12)):
                return [text async for text in page["respond"](message, [])]

        assert asyncio.run(texts_of("")) == ["Write something"]
        assert asyncio.run(texts_of("Why do rivers bend?")) == ["Too long"]
        assert len(asyncio.run(texts_of("Why?"))) > 3

    def test_gradio_does_not_stream_where_another_run_would_block_the_loop(self) -> None:
        text = GRADIO.replace(
            "return qa(question=message).answer",
            "short = qa(question=message).answer\n    return qa(question=short).answer",
        )
        conversion = convert("streaming", text)
        assert not conversion.changed
        assert "its only run" in texts(conversion, "left")[0]

    def test_gradio_yields_the_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        page = run(convert("streaming", GRADIO).new, "gradio", {}, monkeypatch)

        async def texts() -> list[str]:
            with dspy.context(lm=dspy_live.sim_lm(length=12)):
                return [text async for text in page["respond"]("Why?", [])]

        seen = asyncio.run(texts())
        assert len(seen) > 3
        assert all(later.startswith(earlier) for earlier, later in pairwise(seen))

    @pytest.mark.parametrize("kind", ["async", "streaming"])
    def test_flasks_views_stay_and_it_is_said_what_flask_can_not(self, kind: str) -> None:
        conversion = convert(kind, FLASK)
        assert not conversion.changed
        (said,) = texts(conversion, "left")
        assert said.startswith("9: ask() is a Flask view and stays synchronous")
        assert "convert fastapi" in said

    def test_fastapi_routes_await(self) -> None:
        text = FLASK.replace("from flask import Flask, request", "from fastapi import FastAPI").replace(
            "Flask(__name__)", "FastAPI()"
        )
        text = text.replace("def ask():", "def ask(question: str):").replace('request.json["question"]', "question")
        new = convert("async", text).new
        assert (
            '@app.post("/ask")\nasync def ask(question: str):\n    return (await qa.acall(question=question)).answer'
            in new
        )
        assert any("routes that stream" in said for said in texts(convert("streaming", text), "left"))


def test_an_import_before_the_packages_own_stays_with_dspys() -> None:
    """It stood below the blank line, among the relative imports."""
    text = "import dspy\n\nfrom .search import search\n\nqa = dspy.Predict('question -> answer')\n"
    new = convert("streaming", text).new
    assert "import asyncio\n\nimport dspy\nimport dspy_live\n\nfrom .search import search\n" in new


@pytest.mark.parametrize("kind", ["async", "streaming", "tests"])
def test_what_a_notebook_alone_has_is_named_with_its_line(kind: str) -> None:
    """An exported notebook failed with `name 'get_ipython' is not defined`, and nothing said why."""
    text = "import dspy\n\nget_ipython().system('ls')\nqa = dspy.Predict('question -> answer')\n"
    conversion = convert(kind, text)
    assert "3: get_ipython() is there in a notebook only: take it out to run the file by itself." in texts(
        conversion, "advice"
    )
    assert not any("notebook" in said for said in texts(convert(kind, "def display(x): ...\n\n\n" + SCRIPT), "advice"))


def test_what_was_streamed_is_not_printed_again() -> None:
    new = convert("streaming", SCRIPT).new
    assert '    await stream(qa, question="Hm?")\n' in new
    text = SCRIPT.replace(
        'print(qa(question="Hm?").answer)', 'r = qa(question="Hm?")\nprint(r.answer)\nprint("It was", r.answer)'
    )
    new = convert("streaming", text).new
    assert '    r = await stream(qa, question="Hm?")\n    print("It was", r.answer)\n' in new


MODULE = '''"""A program."""

import os
from typing import Any

import dspy
from pydantic import BaseModel

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_key=os.environ.get("KEY")))


class Out(BaseModel):
    name: str


class QA(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return self.ask(question=question)


def main() -> None:
    qa = QA()
    for question in ("a", "b"):
        print(qa(question=question).answer)


if __name__ == "__main__":
    main()
'''

FUNCTIONS = """from __future__ import annotations

import os

import dspy

rag = dspy.ChainOfThought("question -> answer")


def ask(question: str) -> str:
    return rag(question=question).answer


print(os.getcwd())
"""

LATE_IMPORT = 'import os\n\nos.environ["DSPY_CACHEDIR"] = "/tmp/x"\n\nimport dspy\n\nqa = dspy.Predict("question -> answer")\n\nprint(qa(question="a"))\n'

RELATIVE = "# A header.\nfrom dspy import ChainOfThought\n\nfrom .settings import lm\n\nprogram = ChainOfThought(lm)\n"

ONE_BLANK_LINE = """import dspy
import dspy_live

dspy.configure(lm=dspy_live.sim_lm(ttft=0.2))
program = dspy.ChainOfThought("question -> answer")

if __name__ == "__main__":
    print(program(question="Why do rivers bend?").answer)
"""

FORMS = {"script": SCRIPT, "module": MODULE, "functions": FUNCTIONS, "late": LATE_IMPORT, "relative": RELATIVE}
ONE_CALL = """import dspy

qa = dspy.Predict("question -> answer")


def main():
    print(qa(question="a").answer)


main()
"""

FORMS |= {
    "qa": ONE_BLANK_LINE,
    "one_call": ONE_CALL,
    "lifespan": LIFESPAN,
    "01_script": SCRIPT,
    "page": STREAMLIT,
    "chat": GRADIO,
    "flask_app": FLASK,
}


def test_what_is_written_is_formatted_and_sorted_as_ruff_would(tmp_path: Path) -> None:
    """Files that ruff leaves alone are left alone by it after a conversion too."""
    for name, text in FORMS.items():
        (tmp_path / f"{name}.py").write_text(text)
        for kind in KINDS:
            conversion = convert(kind, text, file=f"{name}.py")
            (tmp_path / f"{name}_{kind}.py").write_text(conversion.new)
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "120", "."]
    formatted = subprocess.run([*ruff, "format", "--diff", *options], cwd=tmp_path, capture_output=True, text=True)
    assert formatted.stdout == ""
    rules = ["--select", "I,F401,F811,F821", "--output-format", "concise"]
    sorted_ = subprocess.run([*ruff, "check", *rules, *options], cwd=tmp_path, capture_output=True, text=True)
    assert sorted_.returncode == 0, sorted_.stdout
    assert formatted.returncode == 0, formatted.stderr
    late = convert("usage", LATE_IMPORT).new
    assert late.index("DSPY_CACHEDIR") < late.index("import dspy_live"), "DSPy reads the variable as it is imported"
