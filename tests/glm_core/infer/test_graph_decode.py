"""Decoding by static steps against reading each text anew, without a cache.

On the CPU the steps run as they are: what a CUDA graph adds is tested where there is a GPU.
"""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from glm_core.attention import PrefixLM
from glm_core.infer import SamplingConfig, TextGenerator, graph_decode
from glm_core.infer import batch as batch_module
from glm_core.infer import column_decoder as choice
from glm_core.infer.batch import DecodingBatch, Place, RowStart
from glm_core.infer.graph_decode import capture_graph, graph_decoder, why_not
from glm_core.infer.static_step import static_step
from glm_core.model import Transformer
from glm_core.quantize import QuantizeConfig, quantize_
from glm_core.testing import TINY_FAMILIES, randomize, relative_error, tiny_model
from glm_core.tokenizer import ByteBPETokenizer
from glm_core.tune.prefix import PrefixEncoder


class Counted:
    """Counts for how many rooms a step was to be captured; captures it on a GPU alone."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, step, model):
        self.count += 1
        return capture_graph(step, model) if model.device.type == "cuda" else step


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Lets batches decode by static steps, with little room at first."""
    capture = Counted()
    monkeypatch.setattr(graph_decode, "_LEAST_COLUMNS", 16)
    monkeypatch.setattr(graph_decode, "_kept", weakref.WeakKeyDictionary())
    monkeypatch.setattr(batch_module, "column_decoder", lambda m: graph_decoder(m, capture))
    return capture


class Texts:
    """A batch and, beside it, what each of its rows has read."""

    def __init__(self, model: Transformer, lengths: tuple[int, ...], capacity: int = 12) -> None:
        self.model = model
        self.generator = torch.Generator().manual_seed(4)
        self.starts = [self._start(length) for length in lengths]
        self.batch = DecodingBatch(model, self.starts, capacity)

    def _token(self) -> int:
        return int(torch.randint(self.model.config.vocab_size, (), generator=self.generator))

    def _start(self, length: int) -> RowStart:
        prefix_len = length - 1  # as GLM: all of the context, then a blank
        ids = [self._token() for _ in range(length)]
        return RowStart(ids, [(i, 0) for i in range(length)], prefix_len)

    def step(self, *finished: int) -> None:
        inputs: list[tuple[int, Place] | None] = []
        for row, start in enumerate(self.starts):
            if row in finished:
                inputs.append(None)
                continue
            place = (start.prefix_len, len(start.input_ids) - start.prefix_len)
            inputs.append((self._token(), place))
            start.input_ids.append(inputs[-1][0])
            start.places.append(place)
        self.batch.step(inputs)

    def keep(self, *rows: int) -> None:
        old = self.starts
        self.starts = [
            RowStart(list(old[r].input_ids), list(old[r].places), old[r].prefix_len) for r in rows
        ]
        self.batch.keep(rows)

    def crop(self, row: int, count: int) -> None:
        self.batch.crop(row, count)
        del self.starts[row].input_ids[-count:], self.starts[row].places[-count:]

    def error(self, *finished: int) -> float:
        """Worst relative error of the logits of rows that were not finished."""
        rows = [row for row in range(len(self.starts)) if row not in finished]
        return max(relative_error(self.batch.logits_BV[row], self._anew(row)) for row in rows)

    def _anew(self, row: int) -> Tensor:
        start, device = self.starts[row], self.model.device
        ids = torch.tensor([start.input_ids], device=device)
        places = torch.tensor([start.places], device=device).transpose(1, 2)
        with torch.inference_mode():
            hidden = self.model(ids, places, PrefixLM((start.prefix_len,)))
            return self.model.logits(hidden[0, -1])


def run(texts: Texts) -> Iterator[float]:
    """All that a decoding loop does to a batch; yields errors."""
    for _ in range(3):
        texts.step()
        yield texts.error()
    texts.step(1)  # row 1 has finished
    yield texts.error(1)
    texts.crop(0, 2)
    texts.batch.settle()
    texts.step()
    yield texts.error()
    texts.keep(2, 0, 0)  # as beams do
    texts.step()
    yield texts.error()
    texts.keep(0, 2)  # a row leaves
    for _ in range(18):  # more columns than there was room for at first
        texts.step()
    yield texts.error()
    texts.keep(1)
    texts.step()
    yield texts.error()
    texts.batch.rewind(5)
    del texts.starts[0].input_ids[5:], texts.starts[0].places[5:]
    texts.starts[0].input_ids.append(7)
    texts.starts[0].places.append((texts.starts[0].prefix_len, 3))
    texts.batch.extend([7], texts.starts[0].places[-1:])
    texts.step()
    yield texts.error()


def model_of(family: str, bits: int, prefixed: bool) -> Transformer:
    model = tiny_model(family, head_dim=16, ffn_hidden_size=96)
    if bits != 32:
        group = 32 if bits == 4 else 0
        quantize_(model, QuantizeConfig(bits=bits, group=group, embeddings=True, head=True))
    if prefixed:
        model.prefix = PrefixEncoder(model.config, 3).eval()
        randomize(model.prefix, seed=1)
    return model


@pytest.mark.parametrize("prefixed", [False, True], ids=["plain", "prefixed"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_logits_are_those_of_the_text_read_anew_when_plain(
    family: str, prefixed: bool, counted: Counted
) -> None:
    texts = Texts(model_of(family, 32, prefixed), (6, 3, 4))
    worst = max(run(texts))
    assert worst < 5e-6, worst  # measured worst 7.4e-7
    assert counted.count


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["glm-base", "chatglm-6b", "chatglm2-6b", "codegeex-13b"])
def test_logits_are_those_of_the_text_read_anew_when_quantized(
    family: str, bits: int, counted: Counted
) -> None:
    worst = max(run(Texts(model_of(family, bits, prefixed=False), (6, 3, 4))))
    # Inputs rounded to 15 bits differ in the last of them where fp32 does. Measured worst 1.2e-4.
    assert worst < 1e-3, worst


def test_rooms_are_used_again_when_another_text_comes(counted: Counted) -> None:
    model = tiny_model("chatglm2-6b")
    counts = []
    for rows in (5, 1, 2, 3, 4, 5, 3, 1, 9, 1):
        texts = Texts(model, tuple(range(2, 2 + rows)))
        texts.step()
        assert texts.error() < 5e-6
        counts.append(counted.count)
    # one for each of 8, 1, 2 and 4 rows; 16 need more memory than there was, and all begin anew
    assert counts == [1, 2, 3, 4, 4, 4, 4, 4, 5, 6]


def test_texts_do_not_mix_when_two_batches_take_turns(counted: Counted) -> None:
    model = tiny_model("chatglm-6b")
    pair = [Texts(model, (5, 2)), Texts(model, (4,))]
    for turn in range(6):
        pair[turn % 2].step()
        assert pair[turn % 2].error() < 5e-6
    assert counted.count == 2


def test_steps_are_kept_when_weights_change_in_place_only(counted: Counted) -> None:
    model = tiny_model("glm-4-9b")
    Texts(model, (3,)).step()
    with torch.no_grad():
        model.layers[0].mlp.dense_4h_to_h.weight.mul_(1.5)
    texts = Texts(model, (3,))
    texts.step()
    assert texts.error() < 5e-6 and counted.count == 1
    weight = model.layers[0].mlp.dense_4h_to_h.weight
    model.layers[0].mlp.dense_4h_to_h.weight = nn.Parameter(weight.detach() * 2)
    texts = Texts(model, (3,))
    texts.step()
    assert texts.error() < 5e-6 and counted.count == 2


def test_room_holds_numbers_only_when_its_memory_held_none(counted: Counted) -> None:
    model = tiny_model("llama-7b")
    texts = Texts(model, (5, 3))
    texts.step()
    for tensor in (*texts.batch.cache.keys, *texts.batch.cache.values):
        tensor[:, 6:] = float("nan")
    texts = Texts(model, (5, 3))
    texts.step()
    assert texts.error() < 5e-6


def test_model_is_freed_when_nobody_else_holds_it(counted: Counted) -> None:
    model = tiny_model("llama-7b")
    Texts(model, (3,)).step()
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_columns_have_few_rooms() -> None:
    rooms = [graph_decode._round_up(columns) for columns in range(1, 40000)]
    assert rooms[0] == 256 and rooms[256] == 512 and rooms[32768] == 40960
    assert len(set(rooms)) == 25
    spare = [room - columns for columns, room in enumerate(rooms, 1)]
    assert all(0 <= more < max(256, (i + 1) / 4) for i, more in enumerate(spare))
    assert all(graph_decode._round_up(room) == room for room in set(rooms))


def _with_hook(model: Transformer) -> None:
    model.layers[0].register_forward_hook(lambda *_: None)


def _half_elsewhere(model: Transformer) -> None:
    model.layers[1].to("meta")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.train(), "training mode"),
        (_with_hook, "a Block of its own kind, or with hooks"),
        (_half_elsewhere, "some of its weights are on cpu, others on meta"),
    ],
)
def test_model_is_left_to_its_forward_when_a_graph_would_not_be_right(
    change, reason, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("chatglm2-6b")
    assert why_not(model) is None
    change(model)
    assert reason in str(why_not(model))
    with caplog.at_level(logging.DEBUG, logger="glm_core.infer.graph_decode"):
        assert graph_decoder(model) is None
    assert f"by the model's own forward: {why_not(model)}" in caplog.text


def test_device_decides_which_step_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "graph_decoder", lambda model: "graphs")
    monkeypatch.setattr(choice, "fast_decoder", lambda model: "compiled")
    model = tiny_model("chatglm2-6b")
    assert choice.column_decoder(model) == "compiled"
    monkeypatch.setattr(Transformer, "device", torch.device("cuda"))
    assert choice.column_decoder(model) == "graphs"


@pytest.mark.parametrize("num_beams", [1, 3])
def test_answers_are_the_same_when_blanks_are_filled_either_way(
    num_beams: int,
    model_of_each_position: Transformer,
    tokenizer: ByteBPETokenizer,
    counted: Counted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of_each_position
    texts = ["The [MASK] wraps [sMASK]. Then [gMASK]", "A [gMASK]", "The with [MASK] größe"]
    config = SamplingConfig(max_new_tokens=6, num_beams=num_beams)
    answers = []
    for _ in range(2):
        found = [TextGenerator(model, tokenizer).fill(text, config) for text in texts]
        answers.append([[blank.tokens for blank in filled.blanks] for filled in found])
        count = counted.count
        monkeypatch.setattr(batch_module, "column_decoder", lambda _: None)
    assert answers[0] == answers[1] and count == counted.count > 0


@pytest.mark.gpu
@pytest.mark.parametrize("bits", [32, 4])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_logits_are_those_of_the_text_read_anew_when_graphs_are_replayed(
    family: str, bits: int, counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(family, bits, prefixed=family == "chatglm-6b").cuda()
    worst = max(run(Texts(model, (6, 3, 4))))
    assert worst < 1e-4, worst
    assert counted.count and "without a CUDA graph" not in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_replay_is_the_step_itself_when_rows_are_many(bits: int, counted: Counted) -> None:
    model = model_of("chatglm2-6b", bits, prefixed=False).cuda().bfloat16()
    for rows in (1, 2, 3, 8, 17, 64):
        texts = Texts(model, (4,) * rows, capacity=20)
        for _ in range(3):
            texts.step()
        with torch.inference_mode():
            graphs = graph_decode._kept[model]
            (inputs_6B, replay) = list(graphs._steps.values())[-1]
            keys, values = graphs._window((len(inputs_6B[0]), 32), texts.batch.cache)
            replayed = replay(model).clone()
            assert torch.equal(replayed, static_step(model, inputs_6B, keys, values))


@pytest.mark.gpu
def test_step_runs_without_a_graph_when_it_cannot_be_captured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny_model("chatglm2-6b").cuda()
    weight = model.final_norm.weight

    def asks_the_host(_: Transformer) -> Tensor:
        return weight * weight[0].item()

    step = capture_graph(asks_the_host, model)
    assert "columns are decoded without a CUDA graph" in caplog.text
    assert torch.equal(step(model), weight * weight[0])
