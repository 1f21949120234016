"""The futures of calls, where the native ones need Python: submit's, and on_cancel="wait"."""

import asyncio
import concurrent.futures
import contextlib
import sys
from collections.abc import Callable, Generator
from typing import Any

from wsoffload import _core


class SubmitFuture(_core.Link, concurrent.futures.Future[Any]):
    """A future of `submit`: cancelling it takes its call off the queue at once."""

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self._unlink():
            # No worker will do it, and wait() and as_completed() go by it.
            self.set_running_or_notify_cancel()
        return cancelled


class WaitFuture(_core.Future[Any]):
    """A future of a call that its awaiter waits for even when cancelled.

    Its native `cancel` answers True and leaves the future pending until the call has ended, which
    is all that asyncio needs. A cancelled anyio scope would cancel again on each turn of the loop
    until then, so under anyio the rest of the wait happens in a shielded scope.
    """

    def __await__(self) -> Generator[Any, None, Any]:
        anyio = sys.modules.get("anyio")
        if anyio is None or self.done():
            return super().__await__()
        return self._await_shielded(anyio)

    def _await_shielded(self, anyio: Any) -> Generator[Any, None, Any]:
        woken = self.get_loop().create_future()

        def wake(_: asyncio.Future[Any]) -> None:
            if not woken.done():
                woken.set_result(None)

        self.add_done_callback(wake)
        try:
            yield from woken
        except asyncio.CancelledError as error:
            self.cancel(*error.args)
            if not self.done():
                with anyio.CancelScope(shield=True):
                    yield from super().__await__()
            # Also where the call has ended meanwhile: a task that is cancelled must see it.
            raise
        try:
            return self.result()
        finally:
            # The call's exception holds this frame by its traceback, and the future holds it.
            del self


async def uninterrupted(next_future: Callable[[], asyncio.Future[Any] | None]) -> None:
    """Await futures until there is none, also when cancelled; then raise what cancelled it."""
    anyio = sys.modules.get("anyio")
    cancelled: asyncio.CancelledError | None = None
    with contextlib.nullcontext() if anyio is None else anyio.CancelScope(shield=True):
        while (future := next_future()) is not None:
            try:
                await future
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


_core._set_submit_future(SubmitFuture)
