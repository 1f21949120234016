"""What happens when the interpreter ends and after a fork."""

import atexit
import os
import sys
import threading

from wsoffload import _core, _guard_report, _process


def _after_fork_in_child() -> None:
    _core._after_fork()
    _process.forget()
    _guard_report.sums.forget()


def _require_gil() -> None:
    # Without the declaration of a module that it can do without the GIL, CPython turns the GIL on
    # when it is imported, except where the user forbade that.
    enabled = getattr(sys, "_is_gil_enabled", None)
    if enabled is not None and not enabled():
        raise ImportError(
            "wsoffload needs the GIL and was imported with PYTHON_GIL=0 or -X gil=0: leave that "
            "setting out, and CPython turns the GIL on when wsoffload is imported"
        )


_require_gil()
os.register_at_fork(after_in_child=_after_fork_in_child)
# Before the interpreter finalizes and before it joins threads, as concurrent.futures does it.
threading._register_atexit(_core._leave)  # type: ignore[attr-defined]
# After it has joined them: a server may run in a thread that the main thread leaves to itself.
atexit.register(_core._end_guard)
