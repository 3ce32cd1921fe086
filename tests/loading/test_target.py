"""Targets: every way to name a program, and what is said when it names none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.target import load

PROGRAMS = """
    import dspy

    class Answer(dspy.Signature):
        \"\"\"Answer briefly.\"\"\"
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()

    class Simple(dspy.Module):
        def __init__(self, k=3):
            super().__init__()
            self.k = k
            self.answer = dspy.Predict(Answer)

        def forward(self, question):
            return self.answer(question=question)

    class Needy(dspy.Module):
        def __init__(self, retriever, k=3):
            super().__init__()

    class Failing(dspy.Module):
        def __init__(self):
            raise ValueError("no index here")

    def make():
        return Simple(k=7)

    class holder:
        inner = Simple(k=5)

    program = Simple()
    other = dspy.ChainOfThought("text -> summary")
    settings = {"k": 3}
    lm = dspy.LM("openai/none", api_key="x")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; the path and the modules are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def refusal(target: str, **options: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(target, **options)  # type: ignore[arg-type]
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "kind", "called"),
    [
        ("program", "Simple", "qa"),
        ("other", "ChainOfThought", "other"),
        ("Simple", "Simple", "Simple"),
        ("Answer", "Predict", "Answer"),
        ("make()", "Simple", "make"),
        ("holder.inner", "Simple", "inner"),
    ],
)
def test_an_object_of_a_file(here: Path, name: str, kind: str, called: str) -> None:
    path = write(here, "qa.py", PROGRAMS)
    loaded = load(f"qa.py:{name}")
    assert type(loaded.program).__name__ == kind
    assert loaded.name == called
    assert loaded.path == path
    assert load(f"{path}:{name}").program is not None


def test_a_module_on_the_path_and_in_the_working_folder(here: Path) -> None:
    write(here, "pack/__init__.py", "")
    write(here, "pack/parts.py", "WORD = 'question'")
    write(here, "pack/qa.py", "import dspy\nfrom .parts import WORD\nprogram = dspy.Predict(f'{WORD} -> answer')\n")
    assert load("pack.qa:program").name == "qa"
    # The same file by its path: its relative import works too, and it is the same module.
    assert load("pack/qa.py:program").program is load("pack.qa:program").program


def test_the_only_program_needs_no_name(here: Path) -> None:
    write(here, "one.py", "import dspy\nqa = dspy.Predict('question -> answer')\n")
    write(here, "klass.py", "import dspy\nclass Only(dspy.Module):\n    def forward(self, x): return x\n")
    assert load("one.py").name == "qa"
    assert load("one").name == "qa"
    assert type(load("klass.py").program).__name__ == "Only"
    write(here, "qa.py", PROGRAMS)
    assert "holds 2 programs; name one: program (Simple), other (ChainOfThought)" in refusal("qa.py")
    write(here, "none.py", "x = 1\n")
    assert "none.py holds no program" in refusal("none.py")


def test_an_inline_signature() -> None:
    loaded = load("question, context: list[str] -> answer, score: float")
    assert isinstance(loaded.program, dspy.Predict)
    assert list(loaded.program.signature.output_fields) == ["answer", "score"]
    assert loaded.path is None
    assert "is no signature" in refusal("question -> answer: nosuchtype[")


def test_a_saved_program_wants_consent_because_it_is_a_pickle(here: Path) -> None:
    dspy.Predict("question -> answer").save(str(here / "saved"), save_program=True)
    assert "--allow-pickle" in refusal("saved")
    loaded = load("saved", allow_pickle=True)
    assert isinstance(loaded.program, dspy.Predict)
    assert loaded.name == "saved"
    (here / "empty").mkdir()
    assert "no program.pkl" in refusal("empty")
    write(here, "broken/program.pkl", "not a pickle")
    write(here, "broken/metadata.json", '{"dependency_versions": {}}')
    assert "broken can't be loaded" in refusal("broken", allow_pickle=True)


def test_a_saved_state_goes_into_a_program(here: Path) -> None:
    taught = dspy.Predict("question -> answer")
    taught.demos = [dspy.Example(question="1+1", answer="2")]
    taught.save(str(here / "state.json"))
    assert load("question -> answer", state="state.json").program.demos[0]["answer"] == "2"
    assert "add --state state.json" in refusal("state.json")
    assert "no such state file" in refusal("question -> answer", state="none.json")
    write(here, "wrong.json", '{"a": 1}')
    assert "wrong.json does not fit the program" in refusal("question -> answer", state="wrong.json")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("", "no target"),
        ("nosuch.py:program", "no such file: nosuch.py"),
        ("qq.py:program", "did you mean qa.py?"),
        ("nosuch.module:program", "no module named 'nosuch'"),
        ("qa.nosuch:program", "no module named 'qa.nosuch'"),
        ("what is this", "is no target"),
        ("notes.txt:program", "notes.txt is not a Python file"),
        ("qa.py:progam", "qa.py has no 'progam'; did you mean 'program'?"),
        ("qa.py:zzz", "programs there: program (Simple), other (ChainOfThought)"),
        ("qa.py:settings", "'settings' in qa.py is a dict, not a program"),
        ("qa.py:make", "is a function (write name() if it makes the program)"),
        ("qa.py:lm", "is an LM, not a program"),
        ("qa.py:dspy", "is a module, not a program"),
        ("qa.py:holder", "is the class holder, not a program"),
        ("qa.py:Needy", "needs arguments (retriever)"),
        ("qa.py:Failing", "'Failing' can't be made: ValueError: no index here\n  at qa.py:"),
        ("qa.py:settings()", "'settings()' can't be made: TypeError"),
    ],
)
def test_a_target_that_is_no_program_is_refused_in_one_line(here: Path, target: str, said: str) -> None:
    write(here, "qa.py", PROGRAMS)
    write(here, "notes.txt", "notes")
    assert said in refusal(target)


def test_an_import_error_names_the_users_own_line(here: Path) -> None:
    write(here, "helper.py", "def go():\n    return {}['key']\n")
    write(here, "bad.py", "import helper\nx = 1\nhelper.go()\n")
    assert refusal("bad.py:program") == "bad.py can't be imported: KeyError: 'key'\n  at helper.py:2: return {}['key']"
    write(here, "syntax.py", "x = 1\ndef broken(:\n    pass\n")
    message = refusal("syntax.py:program")
    assert message.startswith("syntax.py can't be imported: SyntaxError")
    assert "at syntax.py:2: def broken(:" in message
    write(here, "missing.py", "import nosuchlibrary\n")
    message = refusal("missing.py:program")
    assert "ModuleNotFoundError: No module named 'nosuchlibrary'" in message
    assert "at missing.py:1: import nosuchlibrary" in message
    write(here, "leaving.py", "import sys\nsys.exit('bye')\n")
    assert "it calls sys.exit('bye')" in refusal("leaving:program")


def test_a_file_may_be_called_like_a_library(here: Path) -> None:
    write(here, "json.py", "import dspy\nprogram = dspy.Predict('question -> answer')\n")
    before = sys.modules["json"]
    loaded = load("json.py:program")
    assert loaded.name == "json"
    assert sys.modules["json"] is before


def test_two_files_of_one_name_stay_apart(here: Path) -> None:
    for folder, field in (("a", "first"), ("b", "second")):
        write(here, f"{folder}/demo_twice.py", f"import dspy\nprogram = dspy.Predict('question -> {field}')\n")
    first, second = load("a/demo_twice.py:program"), load("b/demo_twice.py:program")
    assert list(first.program.signature.output_fields) == ["first"]
    assert list(second.program.signature.output_fields) == ["second"]


@given(st.text(alphabet="zq:./->,[] ()=*~\\\0é\n", max_size=30).map(lambda text: "zz" + text))
@settings(max_examples=300)
def test_any_text_is_a_program_or_our_own_error(text: str) -> None:
    with suppress(ConfigurationError):
        assert load(text).program is not None
