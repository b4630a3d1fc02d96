"""llama.cpp's server: `/infill` for llama.vim and llama.vscode, and what they ask besides."""

from fastapi import APIRouter

from codegeex.serve.llama_cpp import about, completion, infill

router = APIRouter(tags=["llama.cpp"])
for _part in (infill, completion, about):
    router.include_router(_part.router)
