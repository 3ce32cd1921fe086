"""The other conversions, the choice of a program, and bad input."""

# ruff: noqa: E501  (programs as one-line strings read better in one line)

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from dspy_live.assistant.convert import (
    ConvertError,
    DoesNotParse,
    NoProgram,
    SeveralPrograms,
    Source,
    candidates,
    convert,
)

NESTED = (Path(__file__).with_name("programs") / "nested.txt").read_text()

DEFINES_ONLY = """import dspy


class QA(dspy.Module):
    def __init__(self):
        super().__init__()
        self.p = dspy.Predict("question -> answer")

    def forward(self, question: str, n: int, tags: list[str], extra: str = ""):
        return self.p(question=question)
"""


def test_streaming_prints_what_every_run_says() -> None:
    new = convert("streaming", NESTED).new
    assert "async for item in dspy_live.streamify(program)(*args, **inputs):" in new
    assert "return (await stream(p, question=q)).answer" in new
    assert 'r = await stream(outer, question="x")' in new
    assert "aforward" not in new


def test_streaming_after_async_takes_the_awaited_calls() -> None:
    new = convert("streaming", convert("async", NESTED).new).new
    assert 'r = await stream(outer, question="x")' in new
    assert 'print(r.answer, (await stream(gen, question="2")).answer)' in new
    assert "self.cot.acall" in new, "inside the program nothing changes"


def test_streaming_of_a_file_that_only_defines_gets_an_example() -> None:
    conversion = convert("streaming", DEFINES_ONLY)
    assert 'asyncio.run(stream(QA(), question="What is DSPy?", n=3, tags=["one", "two"]))' in conversion.new
    assert any("put your inputs there" in note.text for note in conversion.notes)


def test_streaming_with_dspys_own_function_changes_the_import() -> None:
    text = 'import dspy\n\nstream = dspy.streamify(dspy.Predict("q -> a"), stream_listeners=[dspy.streaming.StreamListener(signature_field_name="a")])\n'
    new = convert("streaming", text).new
    assert (
        'dspy_live.streamify(dspy.Predict("q -> a"), stream_listeners=[dspy_live.StreamListener(signature_field_name="a")])'
        in new
    )


def test_usage_stands_around_what_runs_and_meters_the_lm() -> None:
    text = (
        'import dspy\n\ndspy.configure(lm=dspy.LM("openai/x"))\nqa = dspy.Predict("q -> a")\n# Ask.\nprint(qa(q=1).a)\n'
    )
    new = convert("usage", text).new
    assert "with dspy_live.UsageTracker() as usage:\n    # Ask.\n    print(qa(q=1).a)\nstats = usage.get_stats()" in new
    assert 'dspy.configure(lm=dspy_live.LM("openai/x"))' in new


def test_usage_of_an_asynchronous_program() -> None:
    new = convert("usage", convert("async", NESTED).new).new
    assert "    with dspy_live.UsageTracker() as usage:\n        asyncio.run(main())" in new


@pytest.mark.parametrize("ending", ["sys.exit(main())", "raise SystemExit(main())", "main()\n    sys.exit"])
def test_usage_is_printed_though_the_file_ends_its_process(ending: str) -> None:
    """What stood after ``sys.exit(main())`` was never reached."""
    text = f'import sys, dspy\n\ndef main():\n    print(dspy.Predict("q -> a")(q=1))\n\nif __name__ == "__main__":\n    {ending}\n'
    assert ("    finally:\n        stats = usage.get_stats()" in convert("usage", text).new) == (
        "exit(" in ending.lower()
    )
    if "main())" in ending:
        assert '    finally:\n        dspy_live.log_structured("INFO", "finished")' in convert("logging", text).new


@pytest.mark.parametrize("kind", ["usage", "caching", "logging"])
def test_a_module_that_makes_its_program_with_a_function_runs_nothing(kind: str) -> None:
    text = (
        DEFINES_ONLY.replace(", n: int, tags: list[str]", "")
        + "\n\ndef make():\n    return QA()\n\n\nqa = make()\nconfig = make()\n"
    )
    conversion = convert(kind, text, program="qa")
    assert conversion.new.index("config = make()") < conversion.new.index('if __name__ == "__main__":')
    assert 'print(qa(question="What is DSPy?"))' in conversion.new


def test_a_method_whose_name_ends_alike_is_no_use_of_the_helper() -> None:
    text = DEFINES_ONLY + "\n    def should_stream(self):\n        return True\n"
    assert 'asyncio.run(stream(QA(), question="What is DSPy?"' in convert("streaming", text).new


def test_a_file_that_starts_a_server() -> None:
    text = 'import dspy\nimport uvicorn\n\nqa = dspy.Predict("q -> a")\napp = make(qa)\n\nif __name__ == "__main__":\n    uvicorn.run(app)\n'
    assert "    with dspy_live.UsageTracker() as usage:\n        uvicorn.run(app)\n" in convert("usage", text).new
    streaming = convert("streaming", text)
    assert streaming.new == text
    assert "writes routes that stream" in streaming.notes[0].text


def test_streaming_leaves_the_handlers_of_a_server() -> None:
    """A handler that prints would print on the server's terminal."""
    text = 'import dspy\nfrom fastapi import FastAPI\n\napp = FastAPI()\nqa = dspy.Predict("q -> a")\n\n@app.get("/")\nasync def ask(q: str):\n    return qa(q=q).a\n'
    conversion = convert("streaming", text)
    assert "    return qa(q=q).a\n" in conversion.new
    assert any("The handler ask() answers over HTTP" in note.text for note in conversion.notes)


def test_what_cannot_stream_says_why_and_is_left() -> None:
    text = 'import dspy\n\nqa = dspy.Predict("q -> a")\n\ndef main():\n    print(any(qa(q=q).a for q in "ab"))\n\nif __name__ == "__main__":\n    main()\n'
    conversion = convert("streaming", text)
    assert conversion.new == text
    assert "main() stays synchronous: a generator expression calls a module" in conversion.notes[0].text


def test_names_that_are_taken_are_avoided() -> None:
    text = 'import dspy\n\nusage, stats = 1, 2\nqa = dspy.Predict("q -> a")\nprint(qa(q=usage))\n'
    new = convert("usage", text).new
    assert "as usage_tracker:" in new
    assert "usage_stats = usage_tracker.get_stats()" in new


def test_caching_turns_the_cache_on() -> None:
    text = 'import dspy\n\ndspy.configure(lm=dspy.LM("openai/x", cache=False, temperature=0))\nprint(dspy.Predict("q -> a")(q=1))\n'
    new = convert("caching", text).new
    assert 'dspy_live.LM("openai/x", cache=True, temperature=0)' in new
    assert "dspy_live.cache.stats()" in new


def test_logging_is_set_up_before_anything_runs() -> None:
    new = convert("logging", NESTED, file="nested.py").new
    assert new.index('dspy_live.setup_logging("INFO", file="nested.log")') < new.index("print(ask(outer")


def test_serving_adds_an_app_that_can_be_imported() -> None:
    new = convert("serving", NESTED).new
    assert new.index("app = dspy_live.create_app(outer)") < new.index("if __name__")


def test_a_program_of_the_main_block_is_served_by_its_class() -> None:
    text = DEFINES_ONLY + '\n\nif __name__ == "__main__":\n    qa = QA()\n    print(qa("a", 1, []))\n'
    assert "app = dspy_live.create_app(QA())" in convert("serving", text).new


def test_fastapi_is_a_new_file_with_typed_inputs() -> None:
    conversion = convert("fastapi", DEFINES_ONLY, file="my-qa.py")
    assert conversion.new_file == "my_qa_api.py"
    assert 'QA = importlib.import_module("my-qa").QA\n' in conversion.new
    assert "class Inputs(BaseModel):\n    question: str\n    n: int\n    tags: list[str]\n" in conversion.new
    assert conversion.diff.startswith("--- /dev/null\n+++ b/my_qa_api.py\n")


def test_tests_are_a_new_file() -> None:
    conversion = convert("tests", DEFINES_ONLY, file="qa.py")
    assert conversion.new_file == "test_qa.py"
    assert 'INPUTS = dict(question="What is DSPy?", n=3, tags=["one", "two"])' in conversion.new


class TestCandidates:
    """Which programs a file has."""

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            (DEFINES_ONLY, ["QA"]),
            (NESTED, ["outer", "gen"]),
            ("import dspy\n", []),
            ('import dspy\nlm = dspy.LM("x")\nqa = dspy.Predict("a, b: int -> c")\n', ["qa"]),
            (
                "import dspy\nclass A(dspy.Module): pass\nclass B(dspy.Module):\n    def __init__(self):\n        self.a = A()\n",
                ["B"],
            ),
        ],
    )
    def test_variables_first_then_classes_that_nothing_uses(self, text: str, names: list[str]) -> None:
        assert [candidate.name for candidate in candidates(Source(text))] == names

    def test_inputs_from_an_inline_signature(self) -> None:
        source = Source('import dspy\nqa = dspy.Predict("a, b: dict[str, int], question -> c")\n')
        assert candidates(source)[0].inputs == (("a", "str"), ("b", "dict[str, int]"), ("question", "str"))

    def test_inputs_from_a_signature_class(self) -> None:
        text = "import dspy\nclass S(dspy.Signature):\n    text: str = dspy.InputField()\n    n: int = dspy.InputField()\n    out: str = dspy.OutputField()\nqa = dspy.ChainOfThought(S)\n"
        assert candidates(Source(text))[0].inputs == (("text", "str"), ("n", "int"))

    def test_a_class_that_needs_arguments_is_no_first_choice(self) -> None:
        text = textwrap.dedent("""
        import dspy
        class A(dspy.Module):
            def __init__(self, k):
                self.p = dspy.Predict("q -> a")
            def forward(self, q): return self.p(q=q)
        class B(dspy.Module):
            def forward(self, q): return q
        """)
        assert "create_app(B())" in convert("serving", text).new


class TestBadInput:
    """Each says what is wrong and what to do."""

    def test_a_file_that_does_not_parse_names_the_place(self) -> None:
        with pytest.raises(DoesNotParse, match="line 2") as caught:
            convert("async", "import dspy\nclass A(\n")
        assert caught.value.details["line"] == 2

    def test_programs_that_only_functions_make(self) -> None:
        text = 'import dspy\n\ndef ask(q):\n    return dspy.Predict("q -> a")(q=q)\n'
        with pytest.raises(NoProgram, match="Nothing in the file runs a program"):
            convert("streaming", text)

    @pytest.mark.parametrize("text", ["\x00", "x = '\udcff'", "def f(:\n", "   x\n y\n"])
    def test_nothing_but_our_own_error(self, text: str) -> None:
        with pytest.raises(ConvertError):
            convert("async", text)

    def test_no_program(self) -> None:
        with pytest.raises(NoProgram, match="does not import dspy"):
            convert("async", "print(1)\n")
        with pytest.raises(NoProgram, match=r"inherits from dspy\.Module"):
            convert("streaming", "import dspy\nprint(1)\n")

    def test_several_programs_offer_the_choice(self) -> None:
        text = 'import dspy\na = dspy.Predict("q -> x")\nb = dspy.Predict("q -> y")\n'
        with pytest.raises(SeveralPrograms) as caught:
            convert("serving", text)
        assert caught.value.candidates == ["a", "b"]
        assert "create_app(b)" in convert("serving", text, program="b").new

    @pytest.mark.parametrize("kind", ["async", "usage", "streaming", "logging", "caching"])
    def test_a_name_that_the_file_has_not_is_not_passed_over(self, kind: str) -> None:
        with pytest.raises(NoProgram, match="no program named 'rag'"):
            convert(kind, NESTED, program="rag")

    @pytest.mark.parametrize("kind", ["serving", "fastapi", "tests"])
    def test_a_program_that_cannot_be_imported(self, kind: str) -> None:
        text = 'import dspy\n\ndef ask(q):\n    return dspy.Predict("q -> a")(q=q)\n\nif __name__ == "__main__":\n    ask(1)\n'
        with pytest.raises(NoProgram, match="Make one at the file's top level"):
            convert(kind, text)

    def test_a_program_of_another_name(self) -> None:
        with pytest.raises(NoProgram, match=r"no program named 'rag'.*It has: QA"):
            convert("serving", DEFINES_ONLY, program="rag")

    @pytest.mark.parametrize(("kind", "near"), [("asnyc", "async"), ("streeming", "streaming"), ("cachin", "caching")])
    def test_an_unknown_kind_suggests_the_nearest(self, kind: str, near: str) -> None:
        with pytest.raises(ConvertError, match=f"Did you mean '{near}'"):
            convert(kind, DEFINES_ONLY)
