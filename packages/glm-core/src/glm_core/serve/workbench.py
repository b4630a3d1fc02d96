"""What the page needs besides OpenAI's API: documents, and answers with tools that run here.

It serves the page alone and may change with it, so it is not in the OpenAPI description.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from glm_core.agent.executor.protocol import Image
from glm_core.agent.interpreter import interpreter_tool
from glm_core.agent.loop import Agent, Called, Ended, Event, Observed, Wrote
from glm_core.agent.registry import AgentTool, ToolRegistry
from glm_core.agent.talkers import OpenAITalker, ServerRefused, Talker
from glm_core.chat.roles import INTERPRETER
from glm_core.serve.documents import rank, read_document, readable_endings
from glm_core.serve.errors import SERVER, ApiError
from glm_core.serve.from_thread import from_thread
from glm_core.serve.interpreters import Interpreters
from glm_core.serve.models import ServedModel
from glm_core.serve.openai.convert import dumped
from glm_core.serve.openai.fields import BadField
from glm_core.serve.service import prepared, service_of
from glm_core.serve.sse import DONE, EventStream, event

MAX_PASSAGES = 20_000
MAX_READERS = 2
"""Documents read at a time: each may take a processor and the memory of `pdf_text`."""
NUM_BEST = 8
CODE_NAMES = {"glm4": "python"}
"""What a chat format calls its code interpreter; ChatGLM3's name for those not here."""
INTRODUCTION = (
    "You are connected to a computer without internet access. You can run Python with the "
    "interpreter and read what it prints; when the code fails, correct it. Files are in /mnt/data."
)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PassagesRequest(_Asked):
    """Which passages fit a question?"""

    question: str = Field(max_length=100_000)
    passages: list[str] = Field(max_length=MAX_PASSAGES)


class AgentRequest(_Asked):
    """A conversation whose last message is answered with the help of tools."""

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    session: Annotated[str, Field(min_length=8, max_length=64)]
    """Names the conversation: it keeps its interpreter's variables."""
    options: dict[str, Any] = {}
    """Further fields for /v1/chat/completions."""


class Workbench:
    """The tools that answers on the page may use.

    Args:
        interpreters: None where the model's code is not to be run.
        tools: others.
    """

    def __init__(
        self, interpreters: Interpreters | None = None, tools: Sequence[AgentTool] = ()
    ) -> None:
        self.interpreters = interpreters
        self.tools = tuple(tools)

    def close(self) -> None:
        """Ends the interpreters."""
        if self.interpreters is not None:
            self.interpreters.close()

    def run(self, talker: Talker, text: str, session: str, code_name: str) -> Iterator[Event]:
        """Asks the model; gives what happens, as it happens. Blocks between the events."""
        if self.interpreters is None:
            yield from Agent(talker, ToolRegistry(tools=self.tools)).run(text)
            return
        with self.interpreters.using(session) as executor:
            tools = [interpreter_tool(executor, code_name), *self.tools]
            yield from Agent(talker, ToolRegistry(tools=tools)).run(text)

    def interrupt(self, session: str) -> None:
        """Stops the code that runs for a conversation."""
        if self.interpreters is not None:
            self.interpreters.interrupt(session)


def workbench_router(workbench: Workbench) -> APIRouter:
    """Returns the addresses that the page uses."""
    router = APIRouter(prefix="/workbench", include_in_schema=False)
    readers = anyio.CapacityLimiter(MAX_READERS)

    @router.get("")
    async def offered() -> JSONResponse:
        return JSONResponse(
            {
                "code_interpreter": workbench.interpreters is not None,
                "tools": [tool.name for tool in workbench.tools],
                "documents": readable_endings(),
            }
        )

    @router.post("/documents")
    async def documents(name: str, request: Request) -> JSONResponse:
        _check_kind(request)
        content = await request.body()
        reading = partial(read_document, name[-200:], content)
        passages = await anyio.to_thread.run_sync(reading, limiter=readers)
        return JSONResponse({"passages": [asdict(passage) for passage in passages]})

    @router.post("/passages")
    async def passages(body: PassagesRequest) -> JSONResponse:
        order = await prepared(lambda: rank(body.question, body.passages))
        # A question that shares no word with the text is often about all of it.
        best = order[:NUM_BEST] or range(min(NUM_BEST, len(body.passages)))
        return JSONResponse({"best": [{"index": index} for index in best]})

    @router.post("/agent")
    async def agent(body: AgentRequest, request: Request) -> Response:
        served = service_of(request).models.get(body.model)
        talker = _talker(body, request)
        session = _session(body, request)
        text = _last_text(body.messages)
        name = _code_name(served)
        if workbench.interpreters is not None:
            _introduce(talker, served)
        events = from_thread(
            lambda: workbench.run(talker, text, session, name), lambda: workbench.interrupt(session)
        )
        return await EventStream.begun(request, _told(events))

    return router


async def _told(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events) as stream:
        try:
            async for one in stream:
                yield event(event_data(one))
        except ServerRefused as error:
            raise _passed_on(error) from error
    yield DONE


def _passed_on(refused: ServerRefused) -> ApiError:
    """Returns the error of the inner request as that of the outer one."""
    headers = {"Retry-After": refused.retry_after} if refused.retry_after else None
    try:
        told = json.loads(refused.text)["error"]
        message, kind = str(told["message"]), str(told["type"])
        return ApiError(refused.status, message, told["code"], kind=kind, headers=headers)
    except (ValueError, KeyError, TypeError):
        return ApiError(502, "the model could not be asked", "model_failed", kind=SERVER)


def event_data(happened: Event) -> dict[str, Any]:
    """Returns what the page is told of an event."""
    match happened:
        case Wrote(text):
            return {"type": "text", "text": text}
        case Called(call):
            told = {"id": call.id, "name": call.name, "is_code": bool(call.text)}
            return {"type": "call", "input": call.text or dumped(call.arguments)} | told
        case Observed(call, observation):
            return {
                "type": "result",
                "id": call.id,
                "text": observation.text,
                "is_error": observation.is_error,
                "pictures": [_data_url(image) for image in observation.images],
            }
        case Ended(reason):
            return {"type": "end", "reason": reason.value}


def _talker(body: AgentRequest, request: Request) -> OpenAITalker:
    """Talks with this very server, so that its limits, keys and log count for agents too."""
    address = request.scope.get("server")
    if not address or address[1] is None:
        raise ApiError(501, "tools need a server that listens on a port, not on a socket file")
    host, port = address
    host = f"[{host}]" if ":" in host else host
    key = request.headers.get("authorization", "").partition(" ")[2]
    url = f"http://{host}:{port}/v1"
    talker = OpenAITalker(url, body.model, api_key=key, options=_options(body))
    talker.messages = list(body.messages[:-1])
    return talker


def _introduce(talker: OpenAITalker, served: ServedModel) -> None:
    """Tells ChatGLM3 that there is an interpreter: its format has no tool for that."""
    has_system = any(one.get("role") == "system" for one in talker.messages)
    if not has_system and _code_name(served) == INTERPRETER:
        talker.messages.insert(0, {"role": "system", "content": INTRODUCTION})


def _options(body: AgentRequest) -> dict[str, Any]:
    own = {"model", "messages", "stream", "tools", "tool_choice", "n"} & body.options.keys()
    if own:
        raise BadField("options", f"holds {sorted(own)[0]!r}, which the agent sets itself")
    return body.options


def _last_text(messages: Sequence[dict[str, Any]]) -> str:
    last = messages[-1]
    content = last.get("content")
    if last.get("role") != "user" or not isinstance(content, str):
        raise BadField("messages", "must end with a text of the user")
    return content


def _session(body: AgentRequest, request: Request) -> str:
    """A conversation is known by its name and by the key of who leads it."""
    key = request.headers.get("authorization", "")
    return hashlib.sha256(f"{key}\n{body.session}".encode("utf-8", "replace")).hexdigest()


def _code_name(served: ServedModel) -> str:
    return CODE_NAMES.get(served.chat_format.name, INTERPRETER)


def _check_kind(request: Request) -> None:
    """Only a kind that pages of other origins may not send unasked."""
    if request.headers.get("content-type") != "application/octet-stream":
        raise ApiError(415, "send the file as application/octet-stream", "unsupported_media_type")


def _data_url(image: Image) -> str:
    return f"data:{image.mime};base64,{base64.b64encode(image.data).decode()}"
