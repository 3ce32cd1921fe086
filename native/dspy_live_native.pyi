"""The compiled part of dspy-live. Its interface is dspy-live's own and changes with ``INTERFACE``."""

from typing import final

__all__ = ["INTERFACE", "Splicer", "__version__", "cut"]
__version__: str
INTERFACE: int

def cut(data: bytes, at: int, prefix: bytes, ending: bytes) -> tuple[int, int, str]: ...

@final
class Splicer:
    def __new__(cls) -> Splicer: ...
    def fileno(self) -> int: ...
    def __len__(self) -> int: ...
    def add(
        self,
        lm: int,
        client: int,
        prefix: bytes,
        ending: bytes,
        before: bytes,
        middle: bytes,
        after: bytes,
        seq: int,
        stop: bytes,
        lines: bool,
        escapes: bool,
        owner: object,
    ) -> int: ...
    def run(self) -> list[object]: ...
    def state(self, key: int) -> tuple[float, int] | None: ...
    def release(self, key: int) -> tuple[bytes, bytes, int, int, int, bytes, bytes, float] | None: ...
