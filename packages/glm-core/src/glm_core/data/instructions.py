"""Prompts with responses, mixed into pretraining by example; loss on the response only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glm_core.data.batch import IGNORE, Ints, Sample
from glm_core.data.layout import SpecialIds, blank_sample, causal_sample, suffix_sample
from glm_core.data.sources import read_jsonl
from glm_core.data.spans import Rng
from glm_core.tokenizer.protocol import Tokenizer

TASK_CAP = 200_000
TASK_EXPONENT = 0.8


class InstructionSet:
    """Tasks, each a jsonl file of {"prompt": ..., "response": ...}.

    A task is drawn with weight min(examples, 200,000) ** 0.8, an example of it uniformly.
    Source: GLM's multi-task pretraining (`configure_data.py` of the original code).
    """

    def __init__(self, tasks: Sequence[Sequence[tuple[Ints, Ints]]], ids: SpecialIds) -> None:
        """Args:
        tasks: per task, its examples as token ids (prompt, response).
        """
        self._tasks = tasks
        self._ids = ids
        weights = np.array([min(len(task), TASK_CAP) ** TASK_EXPONENT for task in tasks])
        self._cumulative = np.cumsum(weights) / weights.sum()

    @classmethod
    def load(cls, location: str, tokenizer: Tokenizer) -> InstructionSet:
        """Reads and tokenises a jsonl file, or every jsonl file of a folder.

        Raises:
            ValueError: if there is none, or a line lacks one of the two fields.
        """
        path = Path(location).expanduser()
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ValueError(
                f"data.instruction_source={location!r} is no jsonl file and no folder with some"
            )
        tasks = [task for task in (_read_task(file, tokenizer) for file in files) if task]
        if not tasks:
            raise ValueError(f"data.instruction_source={location!r} has no examples: add some")
        return cls(tasks, SpecialIds.of(tokenizer))

    def sample(self, max_length: int, rng: Rng, causal: bool) -> Sample:
        """A random example of at most `max_length` tokens.

        Blank infilling: [CLS] prompt [gMASK] | sop response, closed by eop. Causal: [CLS] prompt
        response eos. A long prompt loses its beginning, then a long response its end.
        """
        # searchsorted on rounded sums may point one past the end
        task = min(int(self._cumulative.searchsorted(rng.random(), "right")), len(self._tasks) - 1)
        examples = self._tasks[task]
        prompt, response = examples[int(rng.integers(len(examples)))]
        room = max_length - 3
        kept = min(len(prompt), max(room - len(response), room // 4))
        prompt = prompt[len(prompt) - kept :]
        whole = len(response) <= room - kept
        response = response[: room - kept]
        text = np.concatenate(([self._ids.cls], prompt, response))
        return self._causal(text, kept, whole) if causal else self._blank(text, kept, whole)

    def _blank(self, text: Ints, prompt_length: int, whole: bool) -> Sample:
        start = 1 + prompt_length
        if not whole:  # the response goes on, so its end must not be learnt
            return suffix_sample(text, start, self._ids.gmask, self._ids)
        lengths = np.array([len(text) - start])
        return blank_sample(
            text, np.array([start]), lengths, np.array([0]), self._ids.gmask, self._ids
        )

    def _causal(self, text: Ints, prompt_length: int, whole: bool) -> Sample:
        sample = causal_sample(np.append(text, self._ids.eos) if whole else text)
        labels = sample.labels.copy()
        labels[:prompt_length] = IGNORE
        return Sample(sample.input_ids, labels, sample.position_ids, sample.segments)


def _read_task(path: Path, tokenizer: Tokenizer) -> list[tuple[Ints, Ints]]:
    prompts, responses = [], []
    for number, record in read_jsonl(path):
        prompt, response = record.get("prompt"), record.get("response")
        if not isinstance(prompt, str) or not isinstance(response, str) or not response:
            raise ValueError(
                f'{path}:{number} needs the strings "prompt" and "response" (not empty): '
                f"it has {', '.join(record) or 'no fields'}"
            )
        prompts.append(prompt)
        responses.append(response)
    pairs = zip(tokenizer.encode_batch(prompts), tokenizer.encode_batch(responses), strict=True)
    return [(np.array(p, dtype=np.int64), np.array(r, dtype=np.int64)) for p, r in pairs]
