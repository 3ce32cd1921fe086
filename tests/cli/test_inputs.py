"""From the words of a command line to a program's inputs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dspy_live.cli.input.inputs import read_inputs
from dspy_live.cli.input.rows import count_rows, read_rows
from dspy_live.core.errors import InputError
from dspy_live.core.schema import Field, Schema
from dspy_live.server.routes.question import question_inputs


def whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


SCHEMA = Schema(
    "qa",
    inputs=(
        Field("question"),
        Field("max_items", type="int", required=False, default=3, convert=whole),
        Field("tags", type="list[str]", required=False),
    ),
    outputs=(Field("answer"),),
)


def test_words_go_where_their_names_say() -> None:
    assert read_inputs(SCHEMA, "What?") == {"question": "What?"}
    assert read_inputs(SCHEMA, "What?", {"max-items": "4"}) == {"question": "What?", "max_items": 4}
    assert read_inputs(SCHEMA, None, {"question": "42", "tags": '["a", "b"]'}) == {"question": "42", "tags": ["a", "b"]}


def test_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_inputs(SCHEMA, document='{"question": "a", "max_items": 1}') == {"question": "a", "max_items": 1}
    file = tmp_path / "in.json"
    file.write_text('{"question": "from a file"}')
    assert read_inputs(SCHEMA, document=f"@{file}") == {"question": "from a file"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"question": "from stdin"}'))
    assert read_inputs(SCHEMA, document="-") == {"question": "from stdin"}
    monkeypatch.setattr("sys.stdin", io.StringIO("just text\n"))
    assert read_inputs(SCHEMA, "-") == {"question": "just text"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "missing field 'question'"),
        ({"text": "a", "named": {"queston": "b"}}, "unknown field 'queston'"),
        ({"text": "a", "named": {"max_items": "many"}}, "'max_items' must be int: 'many' is not a whole number"),
        ({"text": "a", "named": {"question": "b", "max_items": "1", "tags": "[]"}}, "has no input to go to"),
        ({"document": "{"}, "--inputs is not JSON"),
        ({"document": "[1]"}, "must be a JSON object"),
        ({"document": "@/no/such/file"}, "can't read /no/such/file"),
    ],
)
def test_wrong_inputs_are_told(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_inputs(SCHEMA, **given)  # type: ignore[arg-type]
    assert said in caught.value.message


def test_a_program_whose_inputs_are_unknown_takes_any_name() -> None:
    assert read_inputs(Schema("any", (), (), open=True), named={"depth": "3"}) == {"depth": "3"}


def test_a_value_stays_the_text_that_it_is_where_the_input_takes_only_that() -> None:
    def text_or_none(value: object) -> str | None:
        if value is not None and not isinstance(value, str):
            raise ValueError("a string or null")
        return value

    schema = Schema("qa", (Field("note", type="str | None", required=False, convert=text_or_none),), (Field("answer"),))
    for word, read in (("5", "5"), ("[1]", "[1]"), ("plain words", "plain words"), ("null", None), ('"5"', "5")):
        assert read_inputs(schema, None, {"note": word}) == {"note": read}
        assert question_inputs(schema, word) == {"note": read}


@pytest.mark.parametrize(
    ("name", "data", "count"),
    [
        ("in.jsonl", b'{"a": 1}\r\n\n  \n[1]\nnot json\n\xff\n{"a": 2}', 5),
        ("in.jsonl", b"", 0),
        ("in.csv", b'a,b\n1,2\n\n"two\nlines",3\n1,2,3\n\xff\n', 4),
        ("in.csv", b"a,b\n", 0),
        ("in.csv", b"", 0),
        ("in.tsv", b"a\tb\n1\t2\n" + b"9" * 200_000 + b"\n3\t4\n", 3),
    ],
)
def test_rows_are_counted_as_they_are_read(tmp_path: Path, name: str, data: bytes, count: int) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert count_rows(str(path)) == len(list(read_rows(str(path)))) == count
