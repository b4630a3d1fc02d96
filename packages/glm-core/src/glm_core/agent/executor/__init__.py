"""Runs the code that a model writes, kept away from the machine."""

from glm_core.agent.executor.choose import enclosure, executor
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.observation import observation_text
from glm_core.agent.executor.programs import ProgramResult, ProgramSandbox
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
    "ProgramResult",
    "ProgramSandbox",
    "SandboxUnavailable",
    "enclosure",
    "executor",
    "observation_text",
]
