"""`/api/tags`, `/api/show`, `/api/ps` and `/api/version`: what there is."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, Field

from codegeex.serve.code import code_of
from codegeex.serve.fields import Lenient
from codegeex.serve.ollama.schema import code_model_of, served_of
from glm_core.model.config import TransformerConfig
from glm_core.model.size import count_parameters
from glm_core.model.transformer import Transformer
from glm_core.quantize.weight import QuantizedWeight
from glm_core.serve.models import ServedModel

router = APIRouter()
API_VERSION = "0.6.4"
"""Of Ollama, whose clients look whether a server is new enough for what they ask."""
_NEVER = "2318-01-01T00:00:00Z"
_FAMILY = "glm"
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class ShowRequest(Lenient):
    """Which model to tell of."""

    model: str = Field(validation_alias=AliasChoices("model", "name"))


@router.get("/api/version", summary="The version of Ollama's API (Ollama)")
async def version() -> JSONResponse:
    return JSONResponse({"version": API_VERSION})


@router.get("/api/tags", summary="What is served (Ollama)")
async def tags(request: Request) -> JSONResponse:
    return JSONResponse({"models": [_listed(model) for model in code_of(request).service.models]})


@router.get("/api/ps", summary="What is loaded: everything (Ollama)")
async def ps(request: Request) -> JSONResponse:
    models = [_running(model) for model in code_of(request).service.models]
    return JSONResponse({"models": models})


@router.post("/api/show", summary="About one model (Ollama)")
async def show(body: ShowRequest, request: Request) -> JSONResponse:
    served = served_of(request, body.model)
    code = code_model_of(request, served)
    template, capabilities = "{{ .Prompt }}", ["completion"]
    format = None if code is None else code.completer.format
    if format is not None:
        # Plugins offer to fill in where the template names the suffix.
        template = "{{- if .Suffix }}" + format.template + "{{- else }}{{ .Prompt }}{{- end }}"
        capabilities.append("insert")
    capabilities += [name for name in ("tools",) if served.abilities[name]]
    config = served.engine.model.config
    return JSONResponse(
        {
            "modelfile": f'FROM {served.name}\nTEMPLATE """{template}"""\n',
            "parameters": f"num_ctx {served.context}",
            "template": template,
            "details": _details(served),
            "model_info": {
                "general.architecture": _FAMILY,
                "general.basename": served.name,
                "general.parameter_count": _num_parameters(served),
                f"{_FAMILY}.context_length": served.context,
                f"{_FAMILY}.embedding_length": config.hidden_size,
                f"{_FAMILY}.block_count": config.num_layers,
            },
            "capabilities": capabilities,
            "modified_at": _time(served),
        }
    )


def _listed(served: ServedModel) -> dict[str, Any]:
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": _time(served),
        "size": _num_bytes(served.engine.model),
        "digest": hashlib.sha256(f"{served.name}\n{_config(served)}".encode()).hexdigest(),
        "details": _details(served),
    }


def _running(served: ServedModel) -> dict[str, Any]:
    told = _listed(served)
    told.pop("modified_at")
    model = served.engine.model
    on_gpu = told["size"] if model.device.type != "cpu" else 0
    more = {"expires_at": _NEVER, "size_vram": on_gpu, "context_length": served.context}
    return told | more


def _details(served: ServedModel) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": _FAMILY,
        "families": [_FAMILY],
        "parameter_size": _human(_num_parameters(served)),
        "quantization_level": _level(served.engine.model),
    }


def _config(served: ServedModel) -> str:
    return json.dumps(served.engine.model.config.to_dict(), sort_keys=True)


def _num_parameters(served: ServedModel) -> int:
    return _count(_config(served))


@lru_cache(maxsize=64)
def _count(config: str) -> int:
    """Counts once for each model: a large one takes a while, even without its weights."""
    return count_parameters(TransformerConfig.from_dict(json.loads(config)))


def _level(model: Transformer) -> str:
    bits = {one.bits for one in model.modules() if isinstance(one, QuantizedWeight)}
    if bits:
        return f"Q{min(bits)}_0"
    return _DTYPES.get(str(model.dtype).removeprefix("torch."), str(model.dtype))


def _num_bytes(model: Transformer) -> int:
    return sum(one.nbytes for one in (*model.parameters(), *model.buffers()))


def _human(count: int) -> str:
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.1f}{letter}"
    return str(count)


def _time(served: ServedModel) -> str:
    return datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z")
