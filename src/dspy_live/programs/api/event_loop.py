"""The event loop that the asynchronous functions need."""

from __future__ import annotations

import asyncio


def require_asyncio(function: str) -> None:
    """Raise ``RuntimeError`` where no asyncio loop runs, as under trio, with what to do there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            f"{function} needs a running asyncio event loop, and there is none here. In a script use asyncio.run(…); "
            f"under trio give it a thread: await trio.to_thread.run_sync(asyncio.run, main()), where main() is the "
            f"coroutine that uses {function}; without any loop use syncify, or streamify(…, async_streaming=False)"
        ) from None
