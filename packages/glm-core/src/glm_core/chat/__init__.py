"""Conversations: how each model reads them, what it answers, and sessions that hold them."""

from glm_core.chat.formats import ChatFormat, chat_format, chat_format_for
from glm_core.chat.message import Message, Role, Tool, ToolCall
from glm_core.chat.session import ChatSession, Reply

__all__ = [
    "ChatFormat",
    "ChatSession",
    "Message",
    "Reply",
    "Role",
    "Tool",
    "ToolCall",
    "chat_format",
    "chat_format_for",
]
