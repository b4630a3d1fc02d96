"""Agents: tools that a model may call, and the code interpreter."""

from glm_core.agent.executor.protocol import Image
from glm_core.agent.loop import Agent, Called, Ended, EndReason, Event, Observed, Wrote
from glm_core.agent.registry import AgentTool, Observation, ToolRegistry, tool
from glm_core.agent.talkers import OpenAITalker, SessionTalker, Talker

__all__ = [
    "Agent",
    "AgentTool",
    "Called",
    "EndReason",
    "Ended",
    "Event",
    "Image",
    "Observation",
    "Observed",
    "OpenAITalker",
    "SessionTalker",
    "Talker",
    "ToolRegistry",
    "Wrote",
    "tool",
]
