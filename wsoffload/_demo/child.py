"""What the processes of the demo do in order never to outlive it."""

import argparse
import asyncio
import os
import threading
from collections.abc import Awaitable, Callable

STDIN = 0


def follow_parent(on_signal: Callable[[], object] = bool) -> None:
    """Call `on_signal` for each byte on standard input, and end this process at its end.

    The parent holds the other end of the pipe, so that it closes however the parent ends. A thread
    waits for that, because a server that is written the naive way looks up too rarely.
    """
    threading.Thread(target=_follow, args=(on_signal,), name="parent", daemon=True).start()


def tell(line: str) -> None:
    """Print a line for the parent; if that has ended, so does this process."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Not by an exception: what is buffered could not be written at the exit either.
        os._exit(1)


def client_arguments() -> argparse.ArgumentParser:
    """A parser of what all clients of the demo are told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--ping-interval", type=float, required=True, help="seconds")
    parser.add_argument("--ping-timeout", type=float, required=True, help="seconds")
    return parser


async def attend_parent(
    attend: Callable[[argparse.Namespace, asyncio.Event], Awaitable[None]],
    options: argparse.Namespace,
) -> None:
    """Follow the parent, and do the work, with an event that its first byte sets."""
    loop = asyncio.get_running_loop()
    go = asyncio.Event()
    follow_parent(lambda: loop.call_soon_threadsafe(go.set))
    await attend(options, go)


def _follow(on_signal: Callable[[], object]) -> None:
    # A read without Python's buffers holds no lock that the end of the interpreter would need.
    while os.read(STDIN, 1):
        on_signal()
    os._exit(1)
