"""The build of the C extension; everything else about the package stands in pyproject.toml.

The first lines must be understood by every Python, also by Python 2: whoever tries to build on a
system that is not supported reads one sentence instead of a screen of compiler errors.
"""

import sys

if not sys.platform.startswith("linux") or sys.version_info < (3, 11):
    sys.exit("wsoffload supports Linux and CPython 3.11 or newer; this is Python %d.%d on %s."
             % (sys.version_info[0], sys.version_info[1], sys.platform))  # fmt: skip
if sys.implementation.name != "cpython":
    sys.exit("wsoffload supports Linux and CPython 3.11 or newer; this is %s."
             % sys.implementation.name)  # fmt: skip

import os
from glob import glob

from setuptools import Extension, setup

# A compiler that is newer than ours may know warnings that ours does not: they stop a developer,
# never somebody who only installs the package.
strict = ["-Wall", "-Wextra", "-Werror"] if os.environ.get("WSOFFLOAD_DEV") == "1" else []

setup(
    ext_modules=[
        Extension(
            "wsoffload._core",
            sources=sorted(glob("csrc/core/*.c") + glob("csrc/py/*.c")),
            depends=sorted(glob("csrc/*/*.h")),
            define_macros=[("_GNU_SOURCE", "1")],
            include_dirs=["csrc/core", "csrc/py"],
            extra_compile_args=["-std=c11", "-fvisibility=hidden", "-pthread"] + strict,
            extra_link_args=["-pthread"],
        )
    ]
)
