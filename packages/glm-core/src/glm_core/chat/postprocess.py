"""What the originals change in an answer before anybody sees it, as the answer streams.

Source: `process_response` in modeling_chatglm.py of ChatGLM-6B, ChatGLM2-6B, ChatGLM3-6B, GLM-4-9B.
"""

from __future__ import annotations

_DATE, _YEAR = "[[训练时间]]", "2023年"
_PUNCTUATION = str.maketrans(",!:;?", "，！：；？")


def is_han(char: str) -> bool:
    """Whether a character is one of U+4E00..U+9FFF."""
    return "\u4e00" <= char <= "\u9fff"


class StreamedFix:
    """Strips an answer, puts the year for the model's mark of it, and mends punctuation.

    Args:
        punctuation: whether `,!:;?` beside a Chinese character become their full-width forms.
    """

    def __init__(self, punctuation: bool = False) -> None:
        self._punctuation = punctuation
        self._before = ""
        self._held = ""

    def push(self, text: str) -> str:
        """Takes text; returns what is certain now."""
        self._held += text
        if not self._before:
            self._held = self._held.lstrip()
        self._held = self._held.replace(_DATE, _YEAR)
        return self._emit(len(self._held) - self._uncertain())

    def finish(self) -> str:
        """Ends the answer; returns the rest, without the white space at its end."""
        self._held = self._held.rstrip()
        return self._emit(len(self._held))

    def _uncertain(self) -> int:
        """Characters at the end whose fate the next ones decide."""
        held = self._held
        for size in range(min(len(_DATE) - 1, len(held)), 0, -1):
            if _DATE.startswith(held[-size:]):
                return size + self._undecided(held[:-size])
        return self._undecided(held)

    def _undecided(self, text: str) -> int:
        blank = len(text) - len(text.rstrip())
        if blank or not self._punctuation:
            return blank
        return int(text[-1:] in tuple(",!:;?"))

    def _emit(self, end: int) -> str:
        context, text = self._before + self._held, self._held[:end]
        offset = len(self._before)
        if self._punctuation:
            text = "".join(self._mended(context, offset + index) for index in range(len(text)))
        if end:
            self._before = self._held[end - 1]
        self._held = self._held[end:]
        return text

    @staticmethod
    def _mended(text: str, index: int) -> str:
        beside = text[max(index - 1, 0) : index] + text[index + 1 : index + 2]
        return text[index].translate(_PUNCTUATION) if any(map(is_han, beside)) else text[index]


def fixed(text: str, punctuation: bool = False) -> str:
    """Changes a whole answer."""
    stream = StreamedFix(punctuation)
    return stream.push(text) + stream.finish()
