"""Use pools inside a subinterpreter; prints what happened there. Run by test_subinterpreters.py.

Arguments: "own" or "shared", for a GIL of its own or the main one's, and the name of the case.
"""

import os
import sys
from pathlib import Path

COMMON = """
import asyncio, os, threading, time
import wsoffload

def numbers(count):
    yield from range(count)

async def use(pool):
    results = await asyncio.gather(*[pool.run(pow, 2, n) for n in range(100)])
    assert results == [2**n for n in range(100)]
    assert [item async for item in pool.iterate(numbers, 100)] == list(range(100))
    assert pool.submit(threading.current_thread).result() in threading.enumerate()
"""

CASES = {
    # A pool is used, closed and gone before the interpreter ends.
    "closed": """
async def main():
    async with wsoffload.Pool(2) as pool:
        await use(pool)
asyncio.run(main())
""",
    # Idle threads are left for the end of the interpreter.
    "idle": """
pool = wsoffload.Pool(2, keep_alive=None)
asyncio.run(use(pool))
asyncio.run(use(wsoffload._process._process_pool()))
""",
    # Calls of submit and of run still run when the interpreter ends; it waits for both.
    "running": """
def late():
    time.sleep(0.1)
    os.write(1, b"late\\n")

async def main():
    wsoffload.run(late)
    pool.submit(late)
    await wsoffload.run(int)

pool = wsoffload.Pool(1)
asyncio.run(main())
""",
    # A stream is full, and its reader and its loop are left open.
    "streaming": """
import warnings
warnings.simplefilter("ignore", ResourceWarning)

async def main():
    global stream
    stream = wsoffload.iterate(numbers, 1000000)
    assert await anext(aiter(stream)) == 0

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
""",
    # Threads are still inside a job and looking for work when the interpreter ends.
    "busy": """
async def main():
    for _ in range(50):
        wsoffload.run(sum, range(100))
        pool.submit(sum, range(100))

pool = wsoffload.Pool(3, keep_alive=0)
asyncio.run(main())
""",
}


def run(own_gil: bool, code: str) -> None:
    """Run the code in a new interpreter and end that."""
    if sys.version_info >= (3, 13):
        import _interpreters

        config = _interpreters.new_config("isolated" if own_gil else "legacy")
        interpreter = _interpreters.create(config)
        failure = _interpreters.exec(interpreter, code)
        _interpreters.destroy(interpreter)
        if failure is not None:
            raise AssertionError(failure.formatted)
    else:
        import _xxsubinterpreters  # type: ignore[import-not-found]

        interpreter = _xxsubinterpreters.create(isolated=own_gil)
        _xxsubinterpreters.run_string(interpreter, code)
        _xxsubinterpreters.destroy(interpreter)


if __name__ == "__main__":
    gil, case = sys.argv[1:]
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    for _ in range(3):
        run(gil == "own", path + COMMON + CASES[case])
    threads = [name.name for name in Path("/proc/self/task").iterdir()]
    print("ended", len(threads), flush=True)
    if gil == "own" and sys.version_info < (3, 13):
        # Python 3.12 frees a static type of asyncio twice when the process ends after asyncio was
        # imported in an interpreter with its own GIL, whether or not wsoffload was.
        os._exit(0)
