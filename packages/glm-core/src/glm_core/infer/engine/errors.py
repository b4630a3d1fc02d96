"""Why the engine takes or finishes no request. A fault of the request itself is a ValueError."""

from __future__ import annotations


class EngineError(RuntimeError):
    """What the engine says to one who waits for it."""


class EngineBusy(EngineError):
    """There is no room for another request now.

    Args:
        message: what is full.
        retry_after_s: seconds after which there may be room.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(f"{message}; try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class EngineDraining(EngineError):
    """The engine finishes what it has and takes nothing new.

    Args:
        retry_after_s: seconds after which another engine may be there.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the engine is shutting down and takes no new requests")
        self.retry_after_s = retry_after_s


class EngineFailed(EngineError):
    """The engine itself has stopped; it answers nothing any more."""


class RequestFailed(EngineError):
    """The model could not go on with this request; the others are not touched.

    Args:
        cause: what was raised.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the request failed: {cause or type(cause).__name__}")
        self.cause = cause


class RequestCancelled(EngineError):
    """The request was cancelled before it ended."""


class RequestTimedOut(EngineError):
    """The request had not ended when its time was up.

    Args:
        timeout_s: seconds that it had.
    """

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"the request had not ended after its timeout_s of {timeout_s:g} seconds")
        self.timeout_s = timeout_s
