"""Call ids: unique over threads and forks."""

from __future__ import annotations

import os
import re
import time
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor

from dspy_live.core.call import new_id


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    for one in ids:
        assert re.fullmatch("[0-9a-f]{32}", one)
        read = uuid.UUID(one)
        assert (read.version, read.variant) == (7, uuid.RFC_4122)
        assert before <= int(one[:12], 16) <= after
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)


def test_every_random_digit_varies() -> None:
    digits = [set(column) for column in zip(*(new_id()[13:] for _ in range(2000)), strict=True)]
    assert [len(some) for some in digits] == [16, 16, 16, 4] + [16] * 15


def test_threads_never_get_the_same_one() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [i for some in pool.map(lambda _: [new_id() for _ in range(2000)], range(8)) for i in some]
    assert len(set(ids)) == len(ids)


def test_a_forked_child_does_not_repeat_its_parents_ids() -> None:
    new_id()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests' threads are of no use to the child
        pid = os.fork()
    if pid == 0:
        os.write(write, "".join(new_id() for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as end:
        text = end.read()
    childs = {text[i : i + 32] for i in range(0, len(text), 32)}
    assert len(childs) == 50
    assert not childs & {new_id() for _ in range(200)}
