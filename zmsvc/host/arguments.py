"""The parser of the arguments of a context's processes. Its help has a fixed width.

Without one, argparse asks for the width of the terminal with the first argument that is added. For that it
imports shutil, and with it three compression libraries: 0.35 MB and 5 ms in each process.
"""

from __future__ import annotations

import argparse


class Help(argparse.HelpFormatter):
    """Help that is 100 columns wide."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return a parser without arguments."""
    return argparse.ArgumentParser(prog=prog, description=description, formatter_class=Help)
