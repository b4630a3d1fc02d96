"""The models of a server that complete code, and who asks them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from fastapi import Request

from codegeex.complete import Completer
from glm_core.serve.errors import ApiError
from glm_core.serve.models import ServedModel
from glm_core.serve.service import Service


@dataclass(frozen=True)
class CodeModel:
    """A model that completes code."""

    served: ServedModel
    completer: Completer

    @property
    def name(self) -> str:
        return self.served.name


class Code:
    """What the editors' protocols share; in `app.state.code`.

    Args:
        service: the server's.
        completers: by the names of models that complete code.
        newest_wins: whether an automatic completion cancels what the same client asked for before.

    Raises:
        ValueError: no model does.
    """

    def __init__(
        self, service: Service, completers: Mapping[str, Completer], newest_wins: bool = True
    ) -> None:
        self.service = service
        self.models = {
            model.name: CodeModel(model, completers[model.name])
            for model in service.models
            if model.name in completers
        }
        if not self.models:
            names = ", ".join(model.name for model in service.models)
            raise ValueError(
                f"no model here completes code ({names}): serve one that does, such as --model "
                "nano-code, or use `glm serve`"
            )
        self._newest_wins = newest_wins
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def default(self) -> CodeModel:
        """The model that is asked where a request names none."""
        return next(iter(self.models.values()))

    def named(self, name: str | None) -> CodeModel:
        """Returns the model of a request by a protocol in which names matter.

        Raises:
            ApiError: there is none of this name, or it does not complete code.
        """
        if not name:
            return self.default
        if name in self.models:
            return self.models[name]
        served = self.service.models.get(name)
        known = ", ".join(self.models)
        raise ApiError(
            400,
            f"the model {served.name!r} does not complete code here: ask for {known}, or use "
            "/v1/completions and /v1/chat/completions",
            "cannot_fill_in",
            param="model",
        )

    def any(self, name: str | None) -> CodeModel:
        """Returns the model of a request by a client that names what it takes to be there."""
        return self.models.get(name or "", self.default)

    def client(self, request: Request, protocol: str, user: str | None = None) -> str:
        """Returns who asks for an automatic completion; empty where older requests are kept.

        A client is who it says it is, else its address, which only on this machine belongs to one
        person: behind a proxy or a router many have the same.
        """
        address = "" if request.client is None else request.client.host
        who = user or (address if self.service.config.is_local else "")
        if not self._newest_wins or not who:
            return ""
        key = request.headers.get("authorization", "")
        told = f"{protocol}\n{key}\n{user or ''}\n{address}"
        return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:16]

    def turn(self, client: str) -> asyncio.Lock:
        """Returns what lets requests of one client to the engine in the order in which they came.

        They are read into tokens in threads, and one that is overtaken there would cancel a newer.
        """
        return self._turns.setdefault(client, asyncio.Lock())


def code_of(request: Request) -> Code:
    """Returns what the app that a request came to completes code with."""
    code: Code = request.app.state.code
    return code
