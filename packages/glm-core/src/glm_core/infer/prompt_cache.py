"""What a model has read, kept for the next context that begins in the same way."""

from __future__ import annotations

from collections.abc import Sequence

from glm_core.infer.batch import DecodingBatch


class PromptCache:
    """The columns of the last answer and of the context before it.

    For causal models: there what a column holds depends on nothing that comes after it. A chat
    reads each turn only once this way. Reading a context in two parts rounds differently than in
    one, by as much as any change of batch size does.
    """

    def __init__(self) -> None:
        self._batch: DecodingBatch | None = None
        self._ids: list[int] = []

    def keep(self, batch: DecodingBatch, ids: Sequence[int]) -> None:
        """Keeps the only row of a batch.

        Args:
            batch: not used by anybody else from now on.
            ids: tokens of its row; it may have read fewer of them, and may have been interrupted.
        """
        self._batch, self._ids = batch, list(ids)[: batch.num_read]

    def take(self, ids: Sequence[int]) -> tuple[DecodingBatch, int] | None:
        """Gives the batch away, with no more in it than the beginning of `ids`.

        Returns:
            The batch and how many of `ids` it has read, at most all but one; None if it has none.
        """
        common = 0
        for held, wanted in zip(self._ids, ids[:-1], strict=False):
            if held != wanted:
                break
            common += 1
        batch, self._batch, self._ids = self._batch, None, []
        if batch is None or common == 0:
            return None
        batch.rewind(common)
        return batch, common
