"""What does one item of a stream cost, beside a thread's round trip?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "iterate", *sys.argv[1:]]))
