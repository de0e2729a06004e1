"""``python -m edgecv``: the `edgecv` command, where its script is not on the path."""

from edgecv.cli import program

program()
