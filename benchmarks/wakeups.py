"""How often is the loop woken for a burst of 3,000 calls?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "wakeups", *sys.argv[1:]]))
