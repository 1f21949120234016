"""Is every job settled exactly once, and does memory stay flat, however long and wild the traffic?

`python benchmarks/soak.py [JOBS]`: eight plain threads call `submit`, two event loops call `run`,
all on one pool, each with a window of jobs under way out of which it cancels some at random. Every
job counts its runs, every future its outcomes. The exit status is 0 if each job was settled
exactly once, ran at most once, and memory did not grow after the first tenth.
"""

import argparse
import asyncio
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import wsoffload

SUBMITTERS = 8
LOOPS = 2
WINDOW = 64
CANCELLED_SHARE = 0.2
WARM_UP_SHARE = 0.1
MOST_GROWTH = 16 << 20
SAMPLES_PER_SECOND = 5

WhenFull = Literal["wait", "raise", "drop_oldest"]
AnyFuture = Future[None] | asyncio.Future[None]


@dataclass
class Ledger:
    """What became of each job. Each job has bytes of its own, so no lock is needed."""

    jobs: int
    ran: bytearray = field(init=False)
    refused: bytearray = field(init=False)
    returned: bytearray = field(init=False)
    cancelled: bytearray = field(init=False)
    dropped: bytearray = field(init=False)
    barred: bytearray = field(init=False)  # ended in a way that promises that the job never runs

    def __post_init__(self) -> None:
        for name in ("ran", "refused", "returned", "cancelled", "dropped", "barred"):
            # Multiplied, so that all of it is in memory now and not seen to grow later.
            setattr(self, name, bytearray(1) * self.jobs)

    def settle(self, number: int, future: AnyFuture) -> None:
        """The done callback of a future."""
        if future.cancelled():
            self.cancelled[number] += 1
            # An asyncio future may be cancelled under a running job, which is then abandoned.
            self.barred[number] += isinstance(future, Future)
        elif isinstance(future.exception(), wsoffload.Dropped):
            self.dropped[number] += 1
            self.barred[number] += 1
        else:
            self.returned[number] += 1

    def faults(self) -> Counter[str]:
        """How many jobs broke which promise."""
        faults: Counter[str] = Counter()
        columns = (self.ran, self.refused, self.returned, self.cancelled, self.dropped, self.barred)
        for ran, refused, returned, cancelled, dropped, barred in zip(*columns, strict=True):
            ends = refused + returned + cancelled + dropped
            faults["never settled"] += ends == 0
            faults["settled twice"] += ends > 1
            faults["ran twice"] += ran > 1
            faults["returned without having run"] += returned > ran
            faults["ran although it must not"] += ran > 0 and barred + refused > 0
        return +faults


@dataclass
class Memory:
    """The process's resident memory, sampled while the soak runs."""

    ledger: Ledger
    warm: int = 0  # the most, in bytes, while it warmed up
    later: int = 0  # the most after that

    @contextmanager
    def sampled(self, done: Callable[[], int]) -> Iterator[None]:
        stop = threading.Event()

        def sample() -> None:
            while not stop.wait(1 / SAMPLES_PER_SECOND):
                self._note(done())

        sampler = threading.Thread(target=sample, name="memory")
        sampler.start()
        try:
            yield
        finally:
            stop.set()
            sampler.join()
            self._note(done())

    def _note(self, done: int) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        if done < self.ledger.jobs * WARM_UP_SHARE:
            self.warm = max(self.warm, resident)
        else:
            self.later = max(self.later, resident)

    @property
    def growth(self) -> int:
        """Bytes; 0 if the soak was too short to say."""
        return max(0, self.later - self.warm) if self.warm else 0


def _cancel_some(window: Sequence[AnyFuture], dice: random.Random) -> None:
    if dice.random() < CANCELLED_SHARE:
        window[dice.randrange(len(window))].cancel()


def _submit_all(pool: wsoffload.Pool, ledger: Ledger, numbers: range, seed: int) -> None:
    """One plain thread's part, by `submit`."""
    dice, window = random.Random(seed), deque[Future[None]]()
    for number in numbers:
        try:
            future = pool.submit(_job, ledger, number)
        except wsoffload.QueueFull:
            ledger.refused[number] += 1
            if window:
                _wait_for(window.popleft())
            continue
        future.add_done_callback(partial(ledger.settle, number))
        window.append(future)
        _cancel_some(window, dice)
        if len(window) == WINDOW:
            _wait_for(window.popleft())
    while window:
        _wait_for(window.popleft())


def _wait_for(future: Future[None]) -> None:
    try:
        future.result()
    except (CancelledError, wsoffload.Dropped):
        return  # The ledger knows.


async def _run_all(pool: wsoffload.Pool, ledger: Ledger, numbers: range, seed: int) -> None:
    """One loop's part, by `run`."""
    dice, window = random.Random(seed), deque[asyncio.Future[None]]()
    for number in numbers:
        try:
            future = pool.run(_job, ledger, number)
        except wsoffload.QueueFull:
            ledger.refused[number] += 1
            if window:
                await asyncio.wait([window.popleft()])
            continue
        future.add_done_callback(partial(ledger.settle, number))
        window.append(future)
        _cancel_some(window, dice)
        if len(window) == WINDOW:
            await asyncio.wait([window.popleft()])
    if window:
        await asyncio.wait(window)


def _job(ledger: Ledger, number: int) -> None:
    ledger.ran[number] += 1


def soak(
    jobs: int, max_queue: int | None = None, when_full: WhenFull = "wait"
) -> tuple[Ledger, Memory]:
    """Push `jobs` jobs through one pool from all threads and loops. Give back what was seen."""
    ledger = Ledger(jobs)
    memory = Memory(ledger)
    parts = SUBMITTERS + LOOPS
    shares = [range(part * jobs // parts, (part + 1) * jobs // parts) for part in range(parts)]
    with wsoffload.Pool(4, max_queue=max_queue, when_full=when_full) as pool:

        def work(part: int) -> None:
            if part < SUBMITTERS:
                _submit_all(pool, ledger, shares[part], part)
            else:
                asyncio.run(_run_all(pool, ledger, shares[part], part))

        threads = [threading.Thread(target=work, args=(part,)) for part in range(parts)]
        with memory.sampled(lambda: pool.stats().completed):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return ledger, memory


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--max-queue", type=int, default=None, help="bound of the pool's queue")
    parser.add_argument(
        "--when-full", default="wait", choices=get_args(WhenFull), help="its policy"
    )
    options = parser.parse_args(argv)
    start = time.monotonic()
    ledger, memory = soak(options.jobs, options.max_queue, options.when_full)
    seconds = time.monotonic() - start
    faults = ledger.faults()
    print(
        f"{options.jobs:,} jobs in {seconds:.0f} s: {sum(ledger.ran):,} ran, "
        f"{sum(ledger.cancelled):,} cancelled, {sum(ledger.dropped):,} dropped, "
        f"{sum(ledger.refused):,} refused; "
        f"memory {memory.later / 2**20:.1f} MiB, {memory.growth / 2**20:.1f} MiB more than early on"
    )
    for fault, count in faults.items():
        print(f"FAULT: {count:,} jobs {fault}")
    if memory.growth > MOST_GROWTH:
        print(f"FAULT: memory grew by more than {MOST_GROWTH >> 20} MiB")
    return 1 if faults or memory.growth > MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
