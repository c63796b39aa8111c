"""Where tables are printed: a terminal, or a program that reads them."""

from rich.console import Console

WIDE = 200
"""Columns of a table that is not shown on a terminal: nothing is wrapped or cut for a program that reads it."""


def console() -> Console:
    shown = Console()
    return shown if shown.is_terminal else Console(width=WIDE)
