"""What does one awaited call cost where all threads share one core?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "core", *sys.argv[1:]]))
