"""A language server on the process's standard input and output."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from typing import BinaryIO

from pygls.exceptions import JsonRpcException
from pygls.io_ import StdoutWriter

from codegeex.lsp.protocol import Protocol

_LENGTH = "content-length"
_LONGEST_LINE = 4096
logger = logging.getLogger(__name__)


def own_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Returns the standard input and output, which then nobody else reads or writes by accident.

    What the process prints from now on goes to the standard error.
    """
    sys.stdout.flush()
    stdin = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return stdin, stdout


def log_pygls() -> None:
    """Sends the faults that pygls logs to where ours go; not what a request is told anyway."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], JsonRpcException))
    )
    pygls = logging.getLogger("pygls")
    pygls.handlers[:] = [handler]
    pygls.setLevel(logging.ERROR)
    pygls.propagate = False


async def converse(protocol: Protocol, stdin: BinaryIO, stdout: BinaryIO) -> int:
    """Answers an editor's messages until it takes its leave, or is gone.

    Returns:
        The exit status.
    """
    protocol.set_writer(StdoutWriter(stdout))
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[bytes | None] = asyncio.Queue()

    def read() -> None:
        """Reads on, so that nothing waits for an answer to what came before it."""
        body: bytes | None = b""
        while body is not None:
            body = read_message(stdin)
            try:
                loop.call_soon_threadsafe(messages.put_nowait, body)
            except RuntimeError:  # the loop is closed
                return

    threading.Thread(target=read, name="read-stdin", daemon=True).start()
    while not protocol.has_ended:
        body = await messages.get()
        if body is None:
            logger.info("the editor is gone")
            break
        _take(protocol, body)
        await asyncio.sleep(0)  # a request looks at its document before that changes
    return protocol.exit_status


def read_message(stream: BinaryIO) -> bytes | None:
    """Returns the next message's content, or None at the end of the stream."""
    while True:
        length = _read_header(stream)
        if length is None:
            return None
        if length >= 0:
            body = stream.read(length)
            return body if len(body) == length else None
        logger.warning("a message is skipped: its header tells no Content-Length")


def _read_header(stream: BinaryIO) -> int | None:
    """Returns the length that a header tells, -1 if it tells none, None at the end."""
    length = -1
    while line := stream.readline(_LONGEST_LINE):
        name, _, value = line.decode("ascii", "replace").strip().partition(":")
        if not name:
            return length
        if name.lower() == _LENGTH and value.strip().isdigit():
            length = int(value)
    return None


def _take(protocol: Protocol, body: bytes) -> None:
    try:
        message = json.loads(body, object_hook=protocol.structure_message)
    except (ValueError, RecursionError) as error:
        protocol.refuse_data(error)
        return
    protocol.handle_message(message)
