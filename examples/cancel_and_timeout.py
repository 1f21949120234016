"""What becomes of a call that takes too long."""

import asyncio
import threading
import time

import wsoffload


def patient(steps: int) -> str:
    """Work in steps, and stop between two of them when nobody waits for the result any more."""
    for _ in range(steps):
        wsoffload.check_cancelled()
        time.sleep(0.01)
    return "finished"


async def main() -> None:
    async with wsoffload.Pool(max_workers=1) as pool:
        # The await ends after 0.1 s; the call notices at its next check.
        hasty = pool.using(timeout=0.1, name="report")
        try:
            await hasty.run(patient, 1_000_000)
        except TimeoutError as error:
            print(f"1. {error}")

        # One worker, and it is busy: the second call does not begin in time, and never runs.
        first = pool.run(patient, 1_000_000)
        try:
            await pool.using(queue_timeout=0.1).run(patient, 1)
        except TimeoutError as error:
            print(f"2. {error}")
        first.cancel()

        # Cancelled, but awaited until the call has really ended.
        began, ended = threading.Event(), threading.Event()

        def noted() -> None:
            began.set()
            try:
                patient(1_000_000)
            finally:
                ended.set()

        careful = pool.using(on_cancel="wait").run(noted)
        while not began.is_set():
            await asyncio.sleep(0.01)
        careful.cancel()
        try:
            await careful
        except asyncio.CancelledError:
            print(f"3. cancelled, and the call has ended: {ended.is_set()}")

    print(f"4. {await wsoffload.run(patient, 3)}")


asyncio.run(main())
