"""How each protocol tells of an error: its clients look for the reason there."""

from __future__ import annotations

from typing import Any

from glm_core.serve.errors import ApiError, ErrorShape

_LLAMA_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    503: "unavailable_error",
}
_TGI_TYPES = {422: "validation", 424: "generation", 429: "overloaded"}
_UNPROCESSABLE = {400: 422}


def ollama(error: ApiError) -> tuple[int, Any]:
    """Ollama: a sentence."""
    return error.status, {"error": error.message}


def llama_cpp(error: ApiError) -> tuple[int, Any]:
    """llama.cpp: code, sentence and kind."""
    kind = _LLAMA_TYPES.get(error.status, "server_error" if error.status >= 500 else error.kind)
    if error.code == "context_length_exceeded":
        kind = "exceed_context_size_error"
    return error.status, {
        "error": {"code": error.status, "message": error.message, "type": kind},
    }


def tgi(error: ApiError) -> tuple[int, Any]:
    """TGI: what cannot be answered is 422."""
    status = _UNPROCESSABLE.get(error.status, error.status)
    kind = _TGI_TYPES.get(status, error.code or error.kind)
    return status, {"error": error.message, "error_type": kind}


def mistral(error: ApiError) -> tuple[int, Any]:
    """Mistral: flat, and 422 as well."""
    status = _UNPROCESSABLE.get(error.status, error.status)
    told = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return status, {"object": "error"} | told


def refact(error: ApiError) -> tuple[int, Any]:
    """Refact: a detail."""
    return error.status, {"detail": error.message}


def plugin(error: ApiError) -> tuple[int, Any]:
    """CodeGeeX's first plugin: a status that is not 0, and a message that it shows."""
    return error.status, {"status": error.status, "message": error.message}


def root(error: ApiError) -> tuple[int, Any]:
    """What is posted to `/`: TGI's answer, with the status that CodeGeeX2's demo tells."""
    status, body = tgi(error)
    return status, body | {"status": status}


SHAPES: dict[str, ErrorShape] = {
    "/": root,
    "/api/": ollama,
    "/completion": llama_cpp,
    "/completions": llama_cpp,
    "/detokenize": llama_cpp,
    "/generate": tgi,
    "/generate_stream": tgi,
    "/infill": llama_cpp,
    "/info": tgi,
    "/multilingual_code_generate": plugin,
    "/multilingual_code_generate_adapt": plugin,
    "/multilingual_code_generate_block": plugin,
    "/props": llama_cpp,
    "/tokenize": llama_cpp,
    "/v1/code-completion": refact,
    "/v1/fim/completions": mistral,
}
"""By path; where it ends with / all below it. Other paths have OpenAI's."""
