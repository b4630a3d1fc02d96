"""pygls, with what it leaves to its users.

What pygls 2.1 does otherwise, and is put right here:

- it never answers a request whose parameters are wrong, or one that comes after `shutdown`, so
  that its sender waits for ever; it carries out what comes before `initialize`
- in its documents lines end at form feeds and other characters too, as no editor's do; a column
  inside a character is moved to the character's end
- its exit status does not tell whether `shutdown` came before `exit`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInvalidRequest,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import LanguageServerProtocol, lsp_method
from pygls.protocol.json_rpc import RPCMessage, RPCNotification, RPCRequest

from codegeex.lsp.documents import Documents

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Steps = Generator[Any, Any, Any]
logger = logging.getLogger(__name__)


def _takes(message: str) -> Callable[[_Method], _Method]:
    """Says which message a method of the protocol is for."""
    return lsp_method(message)


class Protocol(LanguageServerProtocol):
    """One connection with an editor."""

    def __init__(self, *args: Any) -> None:
        self.documents = Documents()
        self.is_begun = self.is_shut_down = self.has_ended = False
        super().__init__(*args)

    @property
    def exit_status(self) -> int:
        """0 if the editor took its leave."""
        return 0 if self.is_shut_down else 1

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Returns a message in its type; None for one that was refused."""
        if "method" in data and self.get_message_type(str(data["method"])) is None:
            data.setdefault("params", None)
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            self._refuse(data.get("id") if "method" in data else None, error)
            return None

    def handle_message(self, message: RPCMessage | Any) -> None:
        """Hands a message on, if it may come now."""
        if message is None:
            return
        method, number = getattr(message, "method", ""), getattr(message, "id", None)
        if getattr(message, "jsonrpc", "") != self.VERSION:
            number = message.get("id") if isinstance(message, dict) else number
            self._refuse(number, JsonRpcInvalidRequest("this is no message of JSON-RPC 2.0"))
        elif isinstance(message, RPCRequest) and (error := self._refusal(method)):
            self._refuse(number, error)
        elif self.is_begun or isinstance(message, RPCRequest) or method == types.EXIT:
            self.is_begun |= method == types.INITIALIZE
            super().handle_message(message)
        elif isinstance(message, RPCNotification):
            logger.warning("%s came before initialize and is ignored", method)

    def refuse_data(self, error: Exception) -> None:
        """Answers what is no JSON."""
        self._refuse(None, JsonRpcException(f"a message is no JSON: {error}", code=-32700))

    def _refusal(self, method: str) -> JsonRpcException | None:
        if self.is_shut_down:
            return JsonRpcInvalidRequest(f"{method} came after shutdown: send exit")
        if self.is_begun and method == types.INITIALIZE:
            return JsonRpcInvalidRequest("initialize came before: it may come once")
        if not self.is_begun and method != types.INITIALIZE:
            return JsonRpcServerNotInitialized(f"{method} came before initialize: send that first")
        return None

    def _refuse(self, number: Any, error: JsonRpcException) -> None:
        logger.warning("refused: %s", error.message)
        told = {"code": error.code, "message": error.message}
        known = number if isinstance(number, int | str) else None
        self._send_data({"jsonrpc": self.VERSION, "id": known, "error": told})

    @_takes(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> _Steps:
        result = yield from super().lsp_initialize(params)
        self.documents.encoding = types.PositionEncodingKind(self.workspace.position_encoding).value
        result.capabilities.execute_command_provider = None
        return result

    @_takes(types.SHUTDOWN)
    def lsp_shutdown(self, *args: Any) -> _Steps:
        yield from super().lsp_shutdown(*args)
        self.is_shut_down = True

    @_takes(types.EXIT)
    def lsp_exit(self, *args: Any) -> None:  # type: ignore[override]
        self.has_ended = True

    @_takes(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        self.documents.open(params.text_document)

    @_takes(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        try:
            self.documents.change(params)
        except ValueError as error:
            logger.warning("a change is not followed: %s", error)

    @_takes(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        self.documents.close(params.text_document.uri)
