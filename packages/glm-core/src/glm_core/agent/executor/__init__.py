"""Runs the code that a model writes, kept away from the machine."""

from glm_core.agent.executor.choose import executor
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.observation import observation_text
from glm_core.agent.executor.protocol import (
    WORK_FOLDER,
    CodeError,
    ExecutionResult,
    Executor,
    ExecutorError,
    FileEntry,
    Image,
    Output,
    SandboxUnavailable,
)

__all__ = [
    "WORK_FOLDER",
    "CodeError",
    "ExecutionResult",
    "Executor",
    "ExecutorError",
    "ExecutorLimits",
    "FileEntry",
    "Image",
    "Output",
    "SandboxUnavailable",
    "executor",
    "observation_text",
]
