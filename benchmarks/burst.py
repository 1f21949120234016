"""What does a call cost when 3,000 are under way at once, as bare awaitables?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "burst", *sys.argv[1:]]))
