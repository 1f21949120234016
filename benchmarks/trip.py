"""What does one awaited call cost?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "trip", *sys.argv[1:]]))
