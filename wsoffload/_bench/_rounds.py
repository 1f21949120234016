"""How to measure on a noisy machine: alternate the contenders, compare within each round."""

import gc
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median

Sample = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Sizes:
    """How much to measure: how often, and how much each time."""

    rounds: int = 25  # alternated rounds of a question
    burst: int = 3000  # calls under way at once
    trip_rounds: int = 75  # rounds of trips: short and many, because their times wander most
    trips: int = 300  # calls awaited one after the other
    items: int = 100_000  # items of one stream
    single_items: int = 2000  # items fetched by one `to_thread` each
    queued: int = 200_000  # jobs queued to weigh them


FULL = Sizes()
QUICK = Sizes(rounds=5, trip_rounds=15, items=20_000, single_items=500, queued=50_000)


@dataclass(frozen=True)
class Spread:
    """The lowest, middle and highest of one value over all rounds."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(min(values), median(values), max(values))


async def alternate(samples: Mapping[str, Sample], rounds: int) -> dict[str, list[float]]:
    """Take `rounds` values of each sample in turn, and every other round in the opposite order.

    One value of each is taken first and thrown away: threads start, caches fill.
    """
    values: dict[str, list[float]] = {name: [] for name in samples}
    for sample in samples.values():
        await sample()
    order = list(samples)
    for _ in range(rounds):
        for name in order:
            # The garbage of one contender must not be collected at the cost of the next.
            gc.collect()
            values[name].append(await samples[name]())
        order.reverse()
    return values


def ratios(ours: list[float], theirs: list[float]) -> Spread:
    """The quotients of what was measured in the same round, so that slow minutes cancel out."""
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])
