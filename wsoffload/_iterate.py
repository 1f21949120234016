"""Blocking iterators, read on a thread of their own and consumed with `async for`."""

import asyncio
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from wsoffload import _core
from wsoffload._futures import uninterrupted

if TYPE_CHECKING:
    from wsoffload._pool import Settings

T = TypeVar("T")


class Stream(_core.Stream[T], Generic[T]):
    """The items of a blocking iterator: an asynchronous iterator and context manager.

    Made by `Pool.iterate`. Entering it, or `async for`, starts it: a thread then reads ahead a
    bounded number of items and pauses while they are not taken. An exception of the source is
    raised after the items before it. Leaving the context, exhausting the iterator or losing the
    last reference closes a generator on the thread that ran it.
    """

    _settings: "Settings"

    def __aiter__(self) -> Self:
        if not self._started:
            self._begin()
        return self

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError) and not self._settings.waits:
            # The wait for a call of unknown length is just what was cancelled.
            self._leave(None, True)
            return
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading, and wait until the source is closed on its thread.

        Cancelling the wait ends it, unless the stream was made with ``on_cancel="wait"``.
        """
        self._leave(None, False)
        if self._settings.waits:
            await uninterrupted(self._closed)
        elif (closed := self._closed()) is not None:
            try:
                await closed
            except asyncio.CancelledError:
                self._leave(None, True)
                raise

    def _begin(self) -> None:
        self._start()
        loop = asyncio.get_running_loop()
        settings = self._settings
        limits = {"timeout": settings.timeout, "queue_timeout": settings.queue_timeout}
        # A timer must not keep a stream alive that nobody reads.
        timers = [
            loop.call_later(seconds, _time_is_over, weakref.ref(self), setting, seconds)
            for setting, seconds in limits.items()
            if seconds is not None
        ]
        if timers and (closed := self._closed()) is not None:
            closed.add_done_callback(lambda _: _cancel(timers))

    def _expire(self, setting: str, seconds: float) -> None:
        queued = self._queued()
        if setting == "queue_timeout" and not queued:
            return
        where = "it was still queued" if queued else "it was running"
        label = "" if self._settings.name is None else f"'{self._settings.name}' "
        message = f"{label}stream timed out: {setting}={seconds} s passed while {where}"
        self._leave(TimeoutError(message), not self._settings.waits)


def _cancel(timers: list[asyncio.TimerHandle]) -> None:
    for timer in timers:
        timer.cancel()


def _time_is_over(stream: "weakref.ref[Stream[Any]]", setting: str, seconds: float) -> None:
    alive = stream()
    if alive is not None:  # one way: unless it goes just now, because it cancels its timers
        alive._expire(setting, seconds)
