"""`python -m wsoffload demo`: one server with wsoffload and one without, side by side."""

from .cli import main

__all__ = ["main"]
