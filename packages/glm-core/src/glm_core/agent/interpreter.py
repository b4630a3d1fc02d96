"""The code interpreter as a tool of an agent."""

from __future__ import annotations

from glm_core.agent.background import in_daemon_thread
from glm_core.agent.executor.observation import observation_text
from glm_core.agent.executor.protocol import Executor
from glm_core.agent.registry import AgentTool, Observation
from glm_core.chat.message import ToolCall
from glm_core.chat.roles import INTERPRETER

_MAX_CHARS = 100_000  # the agent cuts it to what the model reads


def interpreter_tool(
    executor: Executor, name: str = INTERPRETER, *, timeout_s: float = 60.0
) -> AgentTool:
    """Returns the tool that runs a model's code.

    Args:
        executor: where it is run.
        name: `interpreter` for ChatGLM3, `python` for GLM-4: so they were taught to call it.
        timeout_s: seconds of one run; the executor then stops the code.
    """

    async def run(call: ToolCall) -> Observation:
        result = await in_daemon_thread(lambda: executor.run(call.text, timeout_s))
        failed = result.error is not None or result.timed_out or bool(result.kernel_died)
        return Observation(observation_text(result, _MAX_CHARS), failed, result.images)

    # The executor ends a run by itself; this is for one that does not, its start included.
    return AgentTool(name, run, None, 2 * timeout_s + 30)
