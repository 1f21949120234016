"""`python -m wsoffload bench`: what an offloaded call costs, beside what others charge for it."""

from ._cli import main

__all__ = ["main"]
