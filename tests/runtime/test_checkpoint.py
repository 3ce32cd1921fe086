"""A checkpoint keeps every whole line, whatever has happened to the others, and has one writer at a time."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.checkpoint import Checkpoint, CheckpointInUse, fingerprint
from dspy_live.runtime.line_file import append_line


def done(n: int) -> dict[str, Any]:
    return {"outputs": {"answer": f"a{n}"}, "prediction": True, "typed": []}


def written(path: Path, count: int) -> list[bytes]:
    """The lines of a checkpoint of ``count`` items, its head first."""
    kept = Checkpoint(path, "p")
    for n in range(count):
        kept.put(n, f"i{n}", done(n))
    kept.close()
    return path.read_bytes().splitlines(keepends=True)


def items_in(path: Path, count: int) -> set[int]:
    kept = Checkpoint(path, "p")
    try:
        return {n for n in range(count) if kept.get(n, f"i{n}") is not None}
    finally:
        kept.close()


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


DAMAGE = [b"\n", b"  \r\n", b'{"item": 48, "inp\n', b"\0\0\0\0\n", b"[]\n", b"7\n", b"{}\n", b"\xff\xfe\n"]
NO_RECORDS = [
    b'{"item": "48", "inputs": "i48", "outputs": {}, "prediction": true}\n',
    b'{"item": 48, "inputs": "i48"}\n',
    b'{"item": 48, "inputs": "i48", "error": "ValueError"}\n',
    b'{"item": 48, "inputs": "i48", "outputs": [], "prediction": true}\n',
]


@pytest.mark.parametrize("damaged", DAMAGE + NO_RECORDS)
def test_a_damaged_line_costs_its_own_item_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    """Of 200 items 48 were kept: the file was cut off at the first line that could not be read."""
    path = tmp_path / "done.jsonl"
    lines = written(path, 200)
    lines[49] = damaged
    path.write_bytes(b"".join(lines))
    with caplog.at_level(logging.WARNING):
        assert items_in(path, 200) == set(range(200)) - {48}
    assert "line 50 is blank or damaged" in caplog.text
    assert path.read_bytes() == b"".join(lines), "nothing is cut off"


def test_many_damaged_lines_make_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "done.jsonl"
    lines = written(path, 20)
    path.write_bytes(b"".join([lines[0], *(line + b"\n" for line in lines[1:])]))
    with caplog.at_level(logging.WARNING):
        assert len(items_in(path, 20)) == 20
    (warning,) = caplog.messages
    assert "20 lines (3, 5, 7, 9, 11, 13, 15, 17, 19, 21, …) are blank" in warning


def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_takes_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "done.jsonl"
    whole = b"".join(written(path, 3))
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        kept = Checkpoint(path, "p")
        before = {n for n in range(3) if kept.get(n, f"i{n}") is not None}
        # A last line that lacks its end only is whole.
        assert before == set(range(sum(map(is_json, whole[:end].split(b"\n")[1:])))), end
        kept.put(7, "i7", done(7))
        assert (kept.get(7, "i7") or {})["outputs"] == {"answer": "a7"}
        kept.close()
        assert items_in(path, 8) == before | {7}, end


def test_lines_that_an_editor_leaves_are_skipped(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, a blank line at the top, no end of the last line."""
    path = tmp_path / "done.jsonl"
    text = b"".join(written(path, 3))
    for edited in (b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n"), b"\n\n" + text, text.rstrip()):
        path.write_bytes(edited)
        assert items_in(path, 3) == {0, 1, 2}
    kept = Checkpoint(path, "p")
    kept.put(3, "i3", done(3))
    kept.close()
    assert items_in(path, 4) == {0, 1, 2, 3}


def test_the_last_record_of_an_item_counts(tmp_path: Path) -> None:
    path = tmp_path / "done.jsonl"
    kept = Checkpoint(path, "p")
    kept.put(0, "i0", {"error": "ValueError", "message": "no"})
    kept.put(0, "i0", done(0))
    kept.close()
    again = Checkpoint(path, "p")
    assert "error" not in (again.get(0, "i0") or {"error": "missing"})
    again.close()


def test_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    """Two batches on one file overwrote each other: 50 of 100 records survived."""
    path = tmp_path / "done.jsonl"
    first = Checkpoint(path, "p")
    first.put(0, "i0", done(0))
    before = path.read_bytes()
    with pytest.raises(CheckpointInUse, match="is in use by another batch; wait for its end, or give another file"):
        Checkpoint(path, "p")
    assert path.read_bytes() == before
    first.put(1, "i1", done(1))
    first.close()
    first.close()
    assert items_in(path, 2) == {0, 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "done.jsonl", "p")
    hold_read, hold_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hold_write)
        os.read(hold_read, 1)
        os._exit(0)
    try:
        kept.close()
        Checkpoint(tmp_path / "done.jsonl", "p").close()
    finally:
        os.close(hold_write)
        os.close(hold_read)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    "text", ["hello\n", "\n\n", "[]\n", '{"checkpoint": 1}\n', '{"checkpoint": 1, "program": "q"}\n']
)
def test_a_refused_file_is_left_as_it_is_and_free(tmp_path: Path, text: str) -> None:
    path = tmp_path / "done.jsonl"
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"done\.jsonl") as refused:
            Checkpoint(path, "p")
        assert not isinstance(refused.value, CheckpointInUse)
    assert path.read_text() == text


def test_a_file_that_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't open the checkpoint .*No such file or directory"):
        Checkpoint(tmp_path / "nowhere" / "done.jsonl", "p")


class NearlyFull:
    """A disk that takes some bytes, and then no more."""

    def __init__(self, room: int, step: int) -> None:
        self.data = b""
        self.room = room
        self.step = step

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return len(self.data) if whence == os.SEEK_END else offset

    def truncate(self, size: int) -> None:
        self.data = self.data[:size]

    def write(self, data: bytes) -> int:
        taken = bytes(data[: min(self.step, self.room - len(self.data))])
        if not taken:
            raise OSError(28, "No space left on device")
        self.data += taken
        return len(taken)


def test_a_line_is_written_whole_or_not_at_all() -> None:
    """A disk that is nearly full takes half a line and says so with a number, not with an error."""
    disk: Any = NearlyFull(room=17, step=4)
    append_line(disk, b"123456789\n")
    with pytest.raises(OSError, match="No space left"):
        append_line(disk, b"123456789\n")
    assert disk.data == b"123456789\n"


ODD = [2**80, {"n": -(2**70)}, {(1, 2): 3}, "\ud800", {"deep": [{"half": "\udc00"}]}]


@pytest.mark.parametrize("value", ODD, ids=ascii)
def test_fingerprint_of_what_json_can_not_hold(value: Any) -> None:
    assert fingerprint(["q", value]) == fingerprint(["q", value])
    assert len({fingerprint(["q", other]) for other in ODD}) == len(ODD)
    assert fingerprint({"a": value, "b": 1}) == fingerprint({"b": 1, "a": value})


def test_large_integer_and_half_a_character_come_back_as_they_were(tmp_path: Path) -> None:
    outputs = {"answer": 3**60, "text": "\ud800"}
    for _ in range(2):  # the second reads what the first has written
        kept = Checkpoint(tmp_path / "done.jsonl", "p")
        if kept.get(0, "i0") is None:
            kept.put(0, "i0", {"outputs": outputs, "prediction": True, "typed": []})
        record = kept.get(0, "i0")
        kept.close()
        assert record is not None
        assert record["outputs"] == outputs
