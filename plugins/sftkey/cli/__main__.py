"""``python -m sftkey.cli``: the command where no ``sftkey`` is on the path."""

from sftkey.cli.main import sftkey

sftkey()
