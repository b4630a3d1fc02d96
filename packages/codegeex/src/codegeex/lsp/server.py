"""The language server: what is answered to which message."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from lsprotocol import types
from pygls.capabilities import get_capability
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from codegeex.hole import Hole
from codegeex.lsp.documents import Cursor, Document, path_of
from codegeex.lsp.items import inline_items, list_items
from codegeex.lsp.late import LateCompleter, NotLoaded
from codegeex.lsp.protocol import Protocol
from codegeex.lsp.question import Question
from codegeex.lsp.settings import SECTION, Offer, Settings

if TYPE_CHECKING:
    from codegeex.lsp.ask import Asker

_SIGNS = [".", "("]
"""Behind them an editor asks for its list though no word is begun."""
_LOADING = "codegeex/loading"
Params = TypeVar("Params")
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class CodeServer(LanguageServer):
    """Completes code for one editor.

    Args:
        model: is loaded once the editor is there.
        version: of this program.
    """

    protocol: Protocol

    def __init__(self, model: LateCompleter, version: str) -> None:
        super().__init__("codegeex", version, protocol_cls=Protocol)
        self.model = model
        self.settings = Settings()
        self._asker: Asker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """Kept, or nothing would keep them."""
        inline = types.InlineCompletionOptions()
        self.feature(types.INITIALIZE)(initialize)
        self.feature(types.INITIALIZED)(initialized)
        self.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(change_configuration)
        self.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, inline)(inline_completion)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Logs the faults that no request is told."""
        logger.error("%s", error)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something beside the messages."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tell(self, message: str, kind: types.MessageType) -> None:
        """Tells whoever sits at the editor."""
        logger.warning("%s", message)
        self.window_show_message(types.ShowMessageParams(kind, f"codegeex: {message}"))

    def change_settings(self, told: Any) -> None:
        """Takes over what the editor told, or tells why not."""
        try:
            self.settings = self.settings.changed(told)
        except ValueError as error:
            self.tell(f"{error}; the settings stay as they were", types.MessageType.Warning)

    def question(
        self, kind: str, document: Document, cursor: Cursor, is_by_hand: bool = False
    ) -> Question:
        """Returns what the model is asked for."""
        root = self._root_of(document.path)
        path = os.path.relpath(document.path, root) if root else os.path.basename(document.path)
        hole = Hole(
            prefix=cursor.prefix,
            suffix=cursor.suffix,
            path=path,
            language=document.language,
            mode=self.settings.mode,
        )
        line = cursor.position.line
        return Question(hole, document, line, root, f"{kind} {document.uri}", is_by_hand)

    async def texts(self, question: Question) -> list[str]:
        """Returns texts for a hole, the best first, once there is a model."""
        settings = self.settings
        completer = await self.model.completer()
        if self._asker is None:
            from codegeex.lsp.ask import Asker  # torch, which by now is there

            self._asker = Asker(completer, self.protocol.documents)
        return await self._asker.texts(question, settings)

    def close(self) -> None:
        """Stops what goes on beside the messages."""
        if self._asker is not None:
            self._asker.close()
        self.model.close()

    def has(self, capability: str) -> bool:
        """Returns whether the editor can do something."""
        return bool(get_capability(self.client_capabilities, capability))

    def _root_of(self, path: str) -> str:
        """Returns the innermost folder of the workspace that a file is in; empty without one."""
        roots = [path_of(uri) for uri in self.workspace.folders] + [self.workspace.root_path or ""]
        return max((root for root in roots if _is_inside(path, root)), key=len, default="")


def _answers(
    handler: Callable[[CodeServer, Params], Awaitable[Result]],
) -> Callable[[CodeServer, Params], Awaitable[Result]]:
    """Turns the errors of a request's handler into what its sender is told."""

    @functools.wraps(handler)
    async def answer(ls: CodeServer, params: Params) -> Result:
        try:
            return await handler(ls, params)
        except ValueError as error:
            raise JsonRpcInvalidParams(str(error)) from error
        except Exception as error:
            message = str(error) or type(error).__name__
            logger.warning("a request failed: %s", message)
            raise JsonRpcException(message, types.LSPErrorCodes.RequestFailed) from error

    return answer


def _is_inside(path: str, root: str) -> bool:
    """A whole disk and somebody's home are no projects."""
    folder = os.path.join(root, "")
    return root not in ("", os.sep, os.path.expanduser("~")) and path.startswith(folder)


def initialize(ls: CodeServer, params: types.InitializeParams) -> None:
    ls.change_settings(params.initialization_options)
    offer = ls.settings.completion_items
    knows_inline = ls.has("text_document.inline_completion")
    if offer is Offer.always or (offer is Offer.auto and not knows_inline):
        listed = types.CompletionOptions(trigger_characters=_SIGNS)
        ls.feature(types.TEXT_DOCUMENT_COMPLETION, listed)(completion)


def initialized(ls: CodeServer, params: types.InitializedParams) -> None:
    ls.begin(_load(ls))


async def change_configuration(ls: CodeServer, params: types.DidChangeConfigurationParams) -> None:
    told = params.settings
    if not told and ls.has("workspace.configuration"):
        wanted = types.ConfigurationParams([types.ConfigurationItem(section=SECTION)])
        told = (await ls.workspace_configuration_async(wanted))[0]
    ls.change_settings(told)


@_answers
async def inline_completion(
    ls: CodeServer, params: types.InlineCompletionParams
) -> types.InlineCompletionList:
    is_by_hand = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
    document = ls.protocol.documents[params.text_document.uri]
    cursor = document.at(params.position)
    span, begun = types.Range(cursor.position, cursor.position), ""
    if params.context.selected_completion_info is not None:
        selected = params.context.selected_completion_info
        cursor, span = document.with_selected(selected.range, selected.text)
        begun = selected.text
    if not is_by_hand and not ls.settings.automatic:
        return inline_items([], span)
    texts = await ls.texts(ls.question("inline", document, cursor, is_by_hand))
    return inline_items([begun + text for text in texts], span)


@_answers
async def completion(ls: CodeServer, params: types.CompletionParams) -> types.CompletionList:
    document = ls.protocol.documents[params.text_document.uri]
    cursor = document.at(params.position)
    texts = await ls.texts(ls.question("list", document, cursor))
    return list_items(texts, cursor, ls.protocol.documents.encoding, ls.model.name)


async def _load(ls: CodeServer) -> None:
    """Loads the model."""
    ls.model.start()
    if ls.has("window.work_done_progress"):
        ls.begin(_show_loading(ls))
    try:
        await ls.model.completer()
        logger.info("%s is ready", ls.model.name)
    except NotLoaded as error:
        ls.tell(str(error), types.MessageType.Error)


async def _show_loading(ls: CodeServer) -> None:
    """Lets the editor show that the model is being loaded."""
    progress = ls.work_done_progress
    with suppress(JsonRpcException, NotLoaded):
        await progress.create_async(_LOADING)
        progress.begin(_LOADING, types.WorkDoneProgressBegin(title=f"Loading {ls.model.name}"))
        try:
            await ls.model.completer()
        finally:
            progress.end(_LOADING, types.WorkDoneProgressEnd())
