"""What becomes of eventfds in children; prints "ok" at the end. Run by tests/test_fork.py.

Argument: the name of the case, as in forks.py.
"""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time

from forks import PATIENCE, RIGHT, Busy, in_child, uses_its_own, wait_for

import wsoffload


def by_subprocess() -> None:
    """A program started from a job or the loop inherits no descriptor of ours."""
    code = (
        "import os; paths = [f'/proc/self/fd/{number}' for number in range(3, 50)]; "
        "print(sum('eventfd' in os.readlink(path) for path in paths if os.path.islink(path)))"
    )

    def start() -> str:
        return subprocess.run(
            [sys.executable, "-c", code],
            close_fds=False,
            pass_fds=(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    async def main() -> None:
        busy = Busy()
        await busy.begin()
        assert start() == "0\n"
        assert await asyncio.to_thread(start) == "0\n"
        with wsoffload.Pool(1) as pool:
            assert await pool.run(start) == "0\n"
        await busy.goes_on()

    asyncio.run(main())


def eventfd_counts() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventfd]":
                with open(f"/proc/self/fdinfo/{name}") as info:
                    line = next(line for line in info if line.startswith("eventfd-count:"))
                found[int(name)] = int(line.split()[1], 16)
        except FileNotFoundError:
            continue
    return found


def eventfds() -> None:
    """The child neither reads, rings nor polls an eventfd that it inherited."""

    async def main() -> None:
        busy = Busy()
        await busy.begin()
        busy.gate.set()
        # This thread holds up its loop until the bell has rung, so that its count is 1.
        deadline = time.monotonic() + PATIENCE
        while sorted(eventfd_counts().values()) != [1]:
            assert time.monotonic() < deadline, eventfd_counts()
            time.sleep(0.001)
        (inherited,) = eventfd_counts()

        def child() -> None:
            asyncio.events._set_running_loop(None)
            uses_its_own()

            async def own_loop() -> None:
                assert await wsoffload.run(int, "1") == 1
                own = asyncio.get_running_loop()._selector.fileno()  # type: ignore[attr-defined]
                with open(f"/proc/self/fdinfo/{own}") as info:
                    polled = {int(line.split()[1]) for line in info if line.startswith("tfd:")}
                assert polled & set(eventfd_counts()) == set(eventfd_counts()) - {inherited}

            asyncio.run(own_loop())
            busy.drops_all()
            assert eventfd_counts() == {inherited: 1}

        status = wait_for(in_child(child))
        assert status == RIGHT, status
        assert eventfd_counts() == {inherited: 1}
        await busy.goes_on()

    asyncio.run(main())


def parents_loop() -> None:
    """A child that turns and closes its parent's loop leaves the bell of that loop alone."""
    loop = asyncio.new_event_loop()
    stopped = threading.Event()

    async def main() -> "asyncio.Future[bool]":
        # The loop must not be there to hear the bell.
        return wsoffload.run(stopped.wait, PATIENCE)

    future = loop.run_until_complete(main())
    stopped.set()
    deadline = time.monotonic() + PATIENCE
    while sorted(eventfd_counts().values()) != [1]:
        assert time.monotonic() < deadline, eventfd_counts()
        time.sleep(0.001)
    before = eventfd_counts()

    def child() -> None:
        loop.run_until_complete(asyncio.sleep(0))
        assert not future.done()
        assert eventfd_counts() == before
        loop.close()
        gc.collect()
        assert eventfd_counts() == before

    status = wait_for(in_child(child))
    assert status == RIGHT, status
    assert eventfd_counts() == before
    assert loop.run_until_complete(future)
    loop.close()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
