"""Errors that the person at the keyboard can mend.

Bad usage and bad input are plain ``ValueError``: the message names the setting, the value, the rule
and the remedy, and the ``glm`` command prints it as one line and exits with status 2.
"""

from __future__ import annotations


class MissingExtraError(ImportError):
    """An optional package is missing; the message holds the command that installs it."""
