"""What does a call cost when 3,000 tasks make one each?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "tasks", *sys.argv[1:]]))
