"""The loop in which a model calls tools and reads what they answer, until it answers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from glm_core.agent.registry import Observation, ToolRegistry
from glm_core.agent.talkers import SessionTalker, Talker, WantedCall
from glm_core.chat.message import ToolCall
from glm_core.chat.session import ChatSession

MAX_ROUNDS, OBSERVATION_LIMIT = 5, 1024
"""Source: composite_demo/demo_tool.py of ChatGLM3."""
TRUNCATED = " [TRUNCATED]"
NOTHING = "(no output)"
"""What the model reads of a tool that answered with an empty text."""


class EndReason(StrEnum):
    """Why an agent stopped."""

    answer = "answer"
    """The model answered."""
    rounds = "rounds"
    """It answered after the last round that it had, without tools."""
    cut = "cut"
    """Its answer was cut at its longest."""


@dataclass(frozen=True)
class Wrote:
    """A piece of the model's text."""

    text: str


@dataclass(frozen=True)
class Called:
    """The model calls a tool, which is run next."""

    call: ToolCall


@dataclass(frozen=True)
class Observed:
    """What came of a call."""

    call: ToolCall
    observation: Observation
    """Whole; the model reads at most `observation_limit` characters of its text."""


@dataclass(frozen=True)
class Ended:
    """The end, always the last event."""

    reason: EndReason
    num_rounds: int
    """Rounds of calls."""
    text: str
    """The last answer."""


Event = Wrote | Called | Observed | Ended


class Agent:
    """Answers questions with the help of tools.

        agent = Agent(ChatSession(generator), ToolRegistry([add]))
        for event in agent.run("What is 2 + 3?"):
            print(event)

    Whatever goes wrong with a call is told to the model: an unknown tool, wrong arguments, an
    exception, a timeout.

    Args:
        talker: the conversation.
        tools: what the model may call.
        max_rounds: answers with calls; behind the last one the model answers without tools.
        observation_limit: characters of an observation that the model reads.
        confirm: asked before each call; a call that it refuses is not made.

    Raises:
        ValueError: a limit is not positive.
    """

    def __init__(
        self,
        talker: Talker | ChatSession,
        tools: ToolRegistry,
        *,
        max_rounds: int = MAX_ROUNDS,
        observation_limit: int = OBSERVATION_LIMIT,
        confirm: Callable[[ToolCall], bool] | None = None,
    ) -> None:
        for name, value in (("max_rounds", max_rounds), ("observation_limit", observation_limit)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        self.tools = tools
        self._talker = SessionTalker(talker) if isinstance(talker, ChatSession) else talker
        self._max_rounds = max_rounds
        self._observation_limit = observation_limit
        self._confirm = confirm

    def run(self, text: str) -> Iterator[Event]:
        """Asks the model; gives what happens, as it happens.

        Raises:
            ValueError: the message is empty, or does not fit into the context.
        """
        pieces, answer, rounds = self._talker.ask(text, self.tools.specs), "", 0
        while True:
            answer = ""
            for piece in pieces:
                answer += piece
                if piece:
                    yield Wrote(piece)
            if self._talker.is_cut or not self._talker.calls or rounds == self._max_rounds:
                break
            results: list[str] = []
            for wanted in self._talker.calls:
                yield Called(wanted.call)
                observation = self._observation(wanted)
                results.append(shortened(observation.text, self._observation_limit))
                yield Observed(wanted.call, observation)
            rounds += 1
            may_call = rounds < self._max_rounds
            pieces = self._talker.observe(results, self.tools.specs if may_call else ())
        yield Ended(self._reason(rounds), rounds, answer)

    def _observation(self, wanted: WantedCall) -> Observation:
        call = wanted.call
        if wanted.fault:
            names = ", ".join(self.tools.tools) or "none"
            return Observation(f"Error: {wanted.fault}. Tools: {names}", is_error=True)
        if self._confirm is not None and not self._confirm(call):
            return Observation("Error: the user refused this call", is_error=True)
        return self.tools.call(call)

    def _reason(self, rounds: int) -> EndReason:
        if self._talker.is_cut:
            return EndReason.cut
        return EndReason.rounds if rounds == self._max_rounds else EndReason.answer


def shortened(text: str, limit: int) -> str:
    """Returns what the model reads of an observation."""
    if len(text) > limit:
        return text[:limit] + TRUNCATED
    return text if text.strip() else NOTHING
