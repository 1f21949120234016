"""How long do peers wait for their Pongs while the event loop stalls, and who is left afterwards?

    python benchmarks/stalls.py [--seconds 6] [--connections 30]

Guarded connections beside those of plain `websockets`, in stalls of each kind: time.sleep on the
loop, a C call that holds the GIL on the loop, and one in asyncio.to_thread; four in a chain, with
one turn of the loop between two. A third of the peers sends a Ping every 100 ms, the others only
answer; the servers ping every 0.5 s and give their peers one second. The peers are the strict ones
of tests/, so pytest must be installed. The exit status is 0 if each guarded connection lives, each
of its Pings is answered and the 99th percentile of the delays is at most 60 ms.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from peer_speech import Peer, Subject

CHAIN = 4
GOAL = 0.060


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure(
    loop: str, side: str, kind: str, seconds: float, connections: int
) -> tuple[int, int, list[float]]:
    """How many connections are left, how many Pings got no Pong, and the others' delays."""
    with Subject(loop, side) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=0.5, ping_timeout=1)
        pinging = peer.connect(port, connections // 3, "/echo", ping_every=0.1)
        answering = peer.connect(port, connections - len(pinging), "/echo")
        peer.until(answering, lambda look: look["pinged"])
        began = subject.call("stall", kind=kind, seconds=seconds / CHAIN, count=CHAIN)[0][0]
        subject.call("report")
        ids = pinging + answering
        peer.call("set", ids=ids, ping_every=0.0)
        peer.until(ids, lambda look: look["end"] or look["pongs"] == look["pings"])
        left = sum(look["state"] == "open" for look in peer.looks(ids))
        reports = peer.reports(pinging)
        delays = [end - start for r in reports for start, end in r["pongs"] if start >= began]
        subject.call("finish")
        return left, sum(report["unanswered"] for report in reports), delays


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6, help="of each chain of stalls")
    parser.add_argument("--connections", type=int, default=30)
    arguments = parser.parse_args()
    kept = True
    print(f"{'loop':8} {'stall':7} {'side':8} {'left':>8} {'no Pong':>8} {'p50':>9} {'p99':>9}")
    for loop in ("asyncio", "uvloop"):
        for kind in ("sleep", "hold", "thread"):
            for side in ("plain", "guarded"):
                left, unanswered, delays = measure(
                    loop, side, kind, arguments.seconds, arguments.connections
                )
                p50, p99 = (percentile(delays, share) * 1000 for share in (0.5, 0.99))
                print(
                    f"{loop:8} {kind:7} {side:8} {left:>4}/{arguments.connections:<3}"
                    f" {unanswered:>8} {p50:>6.1f} ms {p99:>6.1f} ms",
                    flush=True,
                )
                whole = left == arguments.connections and not unanswered and p99 <= GOAL * 1000
                kept = kept and (whole or side == "plain")
    return not kept


if __name__ == "__main__":
    sys.exit(main())
