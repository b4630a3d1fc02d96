"""Errors that the person at the keyboard can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Bad usage or bad input: names the setting, the value, the rule and the remedy.

    The ``glm`` command prints it as one line and exits with status 2, as it does with every
    ``ValueError``; a class of its own only where a caller wants to catch nothing else.
    """


class MissingExtraError(ImportError):
    """An optional package is missing; the message holds the command that installs it."""
