"""What a model writes, as OpenAI's deltas, while it writes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from glm_core.chat.reader import AnswerReader
from glm_core.serve.openai.convert import openai_call

Delta = dict[str, Any]


@dataclass(frozen=True)
class End:
    """How an answer ended."""

    finish_reason: str
    """stop, length, tool_calls, or function_call for a request of the old form."""
    fault: str
    """Why a tool call could not be read; it stands in the content as it was written."""
    message: dict[str, Any]
    """The answer as one message of OpenAI's."""


class AnswerTranslator:
    """Makes OpenAI's deltas of an answer's pieces.

    Text is given out at once. A call is given out when it is complete and could be read, its name
    first and then its arguments: what cannot be read is content, and no delta can be taken back.

    Args:
        reader: the chat format's.
        request_id: names the calls: the same request gives the same ids.
        is_legacy: whether the request has `functions`, and its answer a `function_call`.
        parallel: whether one answer may make several calls.
    """

    def __init__(
        self,
        reader: AnswerReader,
        request_id: str,
        *,
        is_legacy: bool = False,
        parallel: bool = True,
    ) -> None:
        self._reader = reader
        self._request_id = request_id
        self._is_legacy = is_legacy
        self._max_calls = 1 if is_legacy or not parallel else None
        self._content = ""
        self._calls: list[dict[str, Any]] = []
        self._num_read = 0
        self._has_begun = False
        self._needs_break = False

    @property
    def has_enough(self) -> bool:
        """Whether the answer has all the calls it may make: it should be ended now."""
        return self._max_calls is not None and len(self._calls) >= self._max_calls

    def push(self, text: str, ends_message: bool = False) -> list[Delta]:
        """Takes text of the answer.

        Args:
            text: what was written.
            ends_message: whether one of the format's marks follows it.
        """
        deltas = self._shown(self._reader.push(text))
        if ends_message:
            deltas += self._shown(self._reader.next_message()) + self._new_calls()
            self._needs_break = bool(self._content)
        return deltas

    def finish(
        self, wants_observation: bool = False, is_cut: bool = False
    ) -> tuple[list[Delta], End]:
        """Ends the answer; the arguments are those of `AnswerReader.finish`."""
        rest, messages = self._reader.finish(wants_observation, is_cut)
        deltas = self._shown(rest) + self._new_calls()
        if not self._has_begun:
            deltas = [self._begun({"content": ""})]
        fault = next((message.fault for message in messages if message.fault), "")
        return deltas, End(self._reason(is_cut), fault, self._message())

    def _shown(self, text: str) -> list[Delta]:
        if not text:
            return []
        if self._needs_break:  # the next of several texts in one answer
            text, self._needs_break = f"\n{text}", False
        self._content += text
        return [self._begun({"content": text})]

    def _new_calls(self) -> list[Delta]:
        deltas: list[Delta] = []
        for message in self._reader.ended[self._num_read :]:
            for call in message.tool_calls:
                if not self.has_enough:
                    named = replace(call, id=self._id(len(self._calls)))
                    deltas += self._call(openai_call(named, message.content))
        self._num_read = len(self._reader.ended)
        return deltas

    def _call(self, call: dict[str, Any]) -> list[Delta]:
        index, kind = len(self._calls), call["type"]
        self._calls.append(call)
        field = "input" if kind == "custom" else "arguments"
        name, text = call[kind]["name"], call[kind][field]
        if self._is_legacy:
            heads = {"function_call": {"name": name, field: ""}}
            return [self._begun(heads), {"function_call": {field: text}}]
        head = {"index": index, "id": call["id"], "type": kind, kind: {"name": name, field: ""}}
        rest = {"index": index, kind: {field: text}}
        return [self._begun({"tool_calls": [head]}), {"tool_calls": [rest]}]

    def _begun(self, delta: Delta) -> Delta:
        if self._has_begun:
            return delta
        self._has_begun = True
        return {"role": "assistant"} | delta

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._content}
        if not self._calls:
            return message
        message["content"] = self._content or None
        if self._is_legacy:
            (call,) = self._calls
            return message | {"function_call": call[call["type"]]}
        return message | {"tool_calls": list(self._calls)}

    def _reason(self, is_cut: bool) -> str:
        if is_cut:
            return "length"
        called = "function_call" if self._is_legacy else "tool_calls"
        return called if self._calls else "stop"

    def _id(self, index: int) -> str:
        digest = hashlib.sha256(f"{self._request_id}/{index}".encode()).hexdigest()
        return f"call_{digest[:24]}"
