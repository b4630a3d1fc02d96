"""Texts as vectors, computed between the steps of the engine, one text at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from glm_core.infer.engine.errors import EngineError, RequestFailed
from glm_core.infer.engine.stats import Recorder
from glm_core.infer.engine.ticket import Pending
from glm_core.infer.paged import Runner


class Embedding:
    """Texts whose vectors somebody waits for.

    Args:
        texts: ids of each.
        ticket: what the asker holds.
    """

    def __init__(self, texts: Sequence[Sequence[int]], ticket: Pending[Tensor]) -> None:
        self.texts = texts
        self.ticket = ticket
        self.vectors: list[Tensor] = []


class Embeddings:
    """The queue of embeddings. For one thread.

    Args:
        runner: the model.
        recorder: is told how texts ended.
    """

    def __init__(self, runner: Runner, recorder: Recorder) -> None:
        self.queue: deque[Embedding] = deque()
        self.changed: list[Pending[Tensor]] = []
        """Tickets that have something new since `step` began."""
        self._runner = runner
        self._recorder = recorder

    def step(self) -> None:
        """Computes the next vector."""
        if not self.queue:
            return
        first = self.queue[0]
        try:
            first.vectors.append(self._runner.embed(first.texts[len(first.vectors)]))
        except Exception as error:
            self.end(first, RequestFailed(error))
            return
        if len(first.vectors) == len(first.texts):
            self.end(first, torch.stack(first.vectors))

    def end(self, embedding: Embedding, result: Tensor | EngineError) -> None:
        """Takes texts out of the queue and tells their ticket; nothing when they have ended."""
        if embedding not in self.queue:
            return
        self.queue.remove(embedding)
        embedding.ticket.settle(result)
        self._recorder.ended(result)
        self.changed.append(embedding.ticket)
