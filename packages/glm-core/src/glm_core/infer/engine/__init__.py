"""The engine: many requests answered together on one model."""

from glm_core.infer.engine.config import EngineConfig
from glm_core.infer.engine.engine import Engine
from glm_core.infer.engine.errors import (
    EngineBusy,
    EngineDraining,
    EngineError,
    EngineFailed,
    RequestCancelled,
    RequestFailed,
    RequestTimedOut,
)
from glm_core.infer.engine.request import (
    BlankAnswer,
    EngineRequest,
    Outcome,
    Piece,
    Timings,
    Usage,
)
from glm_core.infer.engine.stats import EngineStats, HistogramValues
from glm_core.infer.engine.ticket import Pending, Ticket

__all__ = [
    "BlankAnswer",
    "Engine",
    "EngineBusy",
    "EngineConfig",
    "EngineDraining",
    "EngineError",
    "EngineFailed",
    "EngineRequest",
    "EngineStats",
    "HistogramValues",
    "Outcome",
    "Pending",
    "Piece",
    "RequestCancelled",
    "RequestFailed",
    "RequestTimedOut",
    "Ticket",
    "Timings",
    "Usage",
]
