"""A completion's text on its way from the model to the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from codegeex.complete.line_endings import LF, ToLF
from codegeex.complete.rules import Rule, Stop, first_stop, sure_of


class Trim(Protocol):
    """Something that is done to the end of a whole text."""

    def cut(self, text: str) -> int:
        """Returns how many characters of a whole text are kept."""
        ...

    def hold(self, text: str) -> int:
        """Returns how many characters of a text are kept whatever comes after it."""
        ...


class Shaper:
    """Decides where one answer ends, and shows what of it is final.

    What is shown does not depend on the pieces in which the text comes, and is never taken back.
    One thread pushes; `shown` may be read by any.

    Args:
        rules: end the text.
        trims: what is done to its end, in order.
        skip: characters at the beginning that the prompt's text has already.
        ending: of lines in what is shown.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        trims: Sequence[Trim] = (),
        skip: int = 0,
        ending: str = LF,
    ) -> None:
        self.shown = ""
        self.stop: Stop | None = None
        """What ended the text, if a rule did."""
        self._rules, self._trims = rules, trims
        self._skip, self._ending = skip, ending
        self._endings = ToLF()
        self._num_pushed = 0
        self._text = ""
        self._num_shown = 0

    @property
    def has_line_break(self) -> bool:
        """Whether the text has more than one line."""
        return LF in self._text

    def push(self, piece: str) -> bool:
        """Takes the next piece; returns whether a rule ended the text."""
        if self.stop is not None:
            return True
        self._add(piece)
        self.stop = first_stop(self._rules, self._text)
        if self.stop is not None:
            self._text = self._text[: self.stop.keep]
            return True
        sure = sure_of(self._rules, self._text)
        for trim in self._trims:
            sure = trim.hold(self._text[:sure])
        self._show(sure)
        return False

    def finish(self, text: str) -> str:
        """Ends the text and returns all that is shown.

        Args:
            text: everything that came, pieces that were not pushed included.
        """
        self.push(text[self._num_pushed :])
        kept = len(self._text)
        for trim in self._trims:
            kept = trim.cut(self._text[:kept])
        self._show(kept)
        return self.shown

    @property
    def num_kept(self) -> int:
        """Characters of the model's text that are shown, with those that were skipped."""
        return self._skip + self._num_shown

    def _add(self, piece: str) -> None:
        begin = max(0, self._skip - self._num_pushed)
        self._num_pushed += len(piece)
        self._text += self._endings.push(piece[begin:])

    def _show(self, end: int) -> None:
        if end > self._num_shown:
            new = self._text[self._num_shown : end]
            self._num_shown = end
            self.shown += new if self._ending == LF else new.replace(LF, self._ending)
