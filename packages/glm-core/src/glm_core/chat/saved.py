"""Conversations as files: JSON, readable by people.

{"format": "glm-chat", "version": 1, "chat_format": ..., "system": ..., "tools": [...],
 "messages": [{"role": ..., "content": ...}, ...]}
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from glm_core.chat.message import Message, Tool
from glm_core.checkpoint.files import fsync_folder, read_json, write_json

FORMAT, VERSION = "glm-chat", 1
_REMEDY = "give a file that was written by /save"


@dataclass(frozen=True)
class SavedChat:
    """What a file holds."""

    chat_format: str = ""
    """Name of the format in which the conversation was held; it can go on in another."""
    system: str = ""
    tools: tuple[Tool, ...] = ()
    messages: tuple[Message, ...] = ()


def write_chat(path: Path, chat: SavedChat) -> None:
    """Writes a conversation, replacing an older one whole or not at all.

    Raises:
        ValueError: the file is there and is no saved conversation.
        OSError: it cannot be written; an older one is then untouched.
    """
    if path.exists():
        read_chat(path)
    data = {
        "format": FORMAT,
        "version": VERSION,
        "chat_format": chat.chat_format,
        "system": chat.system,
        "tools": [dict(tool) for tool in chat.tools],
        "messages": [message.to_dict() for message in chat.messages],
    }
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    try:
        write_json(temporary, data)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot save the conversation to {path} ({error.strerror or error}): choose another "
            "file",
        ) from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def read_chat(path: Path) -> SavedChat:
    """Reads what `write_chat` wrote.

    Raises:
        ValueError: the file is missing, damaged or something else.
    """
    data = read_json(path, _REMEDY)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path} is no saved conversation: {_REMEDY}")
    if data.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {data.get('version')!r}; this program reads version {VERSION}"
        )
    system, tools, messages = data.get("system", ""), data.get("tools"), data.get("messages")
    if not isinstance(system, str) or not isinstance(tools, list) or not isinstance(messages, list):
        raise ValueError(f"{path} lacks system, tools or messages: {_REMEDY}")
    try:
        said = tuple(map(Message.from_dict, messages))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {_REMEDY}") from error
    return SavedChat(str(data.get("chat_format", "")), system, tuple(tools), said)
