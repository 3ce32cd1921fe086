"""Files of lines: a line is written whole or not at all, and a file has one writer at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
from typing import BinaryIO

logger = logging.getLogger("dspy_live.files")


def append_line(file: BinaryIO, line: bytes) -> None:
    """Write ``line`` at the end of an unbuffered file. Raises ``OSError``, and then half a line is cut off again.

    To a pipe nothing can be taken back: there a line may be torn.
    """
    start = file.seek(0, os.SEEK_END) if file.seekable() else None
    rest = memoryview(line)
    try:
        while rest:
            # None: the descriptor does not block, and there is no room. Fewer than given: the disk is nearly full.
            written: int | None = file.write(rest)
            if written is None:
                select.select([], [file], [])
            rest = rest[written or 0 :]
    except OSError:
        if start is not None:
            with contextlib.suppress(OSError):
                file.truncate(start)
                file.seek(start)
        raise


def lock(file: BinaryIO, name: str) -> bool:
    """Take the lock of an open file until :func:`unlock`. Returns ``False`` when another has it, in any process.

    Where there are no such locks (Windows, some network file systems), or the file is a device, it returns ``True``.
    """
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return True
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError) as exc:
        logger.warning("%s can't be locked (%s): see to it that nothing else writes to it", name, exc)
    return True


def unlock(file: BinaryIO) -> None:
    """Give the lock back at once, although a forked process may still hold the file open."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
