"""How much memory does a queued job take?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "memory", *sys.argv[1:]]))
