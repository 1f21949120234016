"""How many system calls does one awaited call make?"""

import sys

from wsoffload._bench import main

if __name__ == "__main__":
    sys.exit(main(["--only", "syscalls", *sys.argv[1:]]))
