"""How a completion is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for beside the hole."""

    max_new_tokens: int = 64
    """Longest completion in tokens; 0 only reads the prompt into the cache."""
    temperature: float = 0.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Sample among the fewest tokens that together have this probability."""
    top_k: int = 0
    """Sample among the k most probable tokens; 0 means all."""
    num_choices: int = 1
    """Completions tried; those that come out the same are given once."""
    seed: int | None = None
    """Of the draws; None: 0."""
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these."""
    max_lines: int = 0
    """The completion ends with so many lines, the cursor's being the first; 0: any number."""
    min_indent: int = 0
    """White space that every line but the first must begin with; the completion ends before one
    that does not."""
    time_limit_s: float | None = None
    """Seconds from the first token after which a completion ends, once it has a line break."""
    client: str = ""
    """Who asks."""
    newest_wins: bool = False
    """Unfinished requests of the same client are cancelled."""
    logprobs: int | None = None
    """Alternatives given with each token's log-probability; None: nobody looks at them."""
    raw: bool = False
    """The model's text as it is: no rule but `stop` ends it, and nothing is trimmed."""

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 0, "max_new_tokens", self.max_new_tokens, "be at least 0")
        _require(self.num_choices >= 1, "num_choices", self.num_choices, "be at least 1")
        for name in ("max_lines", "min_indent"):
            value = getattr(self, name)
            _require(value >= 0, name, value, "be at least 0")
        _require("" not in self.stop, "stop", self.stop, "hold no empty string")
        _require(
            self.time_limit_s is None or self.time_limit_s >= 0,
            "time_limit_s",
            self.time_limit_s,
            "be at least 0, or None",
        )


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}: it must {rule}")
