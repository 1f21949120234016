"""The process of one server: `python -m wsoffload._demo.server naive|wsoffload DATABASE`."""

import asyncio
import sys
from collections.abc import Sequence

from . import naive, stream_query
from .child import follow_parent

SERVERS = {"naive": naive.main, "wsoffload": stream_query.main}


def main(argv: Sequence[str]) -> None:
    """Print the address and serve until SIGTERM or the end of the parent."""
    name, database = argv
    follow_parent()
    asyncio.run(SERVERS[name](database, 0))


if __name__ == "__main__":
    main(sys.argv[1:])
