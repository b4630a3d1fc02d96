"""Ollama's API, as its clients and most plugins speak it."""

from fastapi import APIRouter

from codegeex.serve.ollama import about, chat, generate

router = APIRouter(tags=["Ollama"])
for _part in (generate, chat, about):
    router.include_router(_part.router)
