"""The runner against the model's own forward over whole texts, without any cache."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from glm_core.attention import Causal, PrefixLM
from glm_core.infer.paged import (
    PAGE_SIZE,
    PagedText,
    PagesExhausted,
    Runner,
    Work,
    compute,
    stack_rows,
)
from glm_core.model import Transformer
from glm_core.testing import TINY_FAMILIES, assert_relative, randomize, tiny_model
from glm_core.tune.prefix import PrefixEncoder

LONG = 4 * PAGE_SIZE
TOLERANCE = 2e-6
"""Of logits, relative; the worst measured was 6.5e-7."""


def long_model(
    family: str = "chatglm2-6b", head_dim: int = 16, dtype: torch.dtype = torch.float32
) -> Transformer:
    """A model for the compiled step, if heads have 16 dims; with 8 it runs its own forward."""
    sizes = {"head_dim": head_dim, "ffn_hidden_size": 48}
    return tiny_model(family, max_position_embeddings=LONG, **sizes).to(dtype)


def with_prefix(model: Transformer, prefix_len: int = 5) -> Transformer:
    model.prefix = PrefixEncoder(model.config, prefix_len).eval()
    randomize(model.prefix, 1)
    return model


def some_ids(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(67), k=count)


def straight(count: int, start: int = 0) -> list[tuple[int, int]]:
    return [(column, 0) for column in range(start, start + count)]


@torch.no_grad()
def expected(
    model: Transformer,
    ids: Sequence[int],
    places: Sequence[tuple[int, int]] | None = None,
    prefix_len: int = 0,
) -> Tensor:
    """Logits of all columns, [T, V]."""
    mask = PrefixLM((prefix_len,)) if prefix_len else Causal()
    places_1T2 = torch.tensor([list(places or straight(len(ids)))])
    hidden_1TD = model(torch.tensor([list(ids)]), places_1T2.transpose(1, 2), mask)
    return model.logits(hidden_1TD)[0]


def read(
    runner: Runner,
    text: PagedText,
    ids: Sequence[int],
    places: Sequence[tuple[int, int]] | None = None,
    wants: str = "last",
) -> Tensor:
    places = places or straight(len(ids), text.length)
    (logits,) = runner.step([Work(text, list(ids), list(places), wants)])
    assert logits is not None
    return logits


def begin(runner: Runner, ids: list[int], prefix_len: int = 0) -> tuple[PagedText, int]:
    return runner.open(ids, straight(len(ids)), prefix_len)


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("prefix", (0, 5))
@pytest.mark.parametrize("head_dim", (8, 16))
def test_steps_equal_the_forward_when_texts_cross_pages(
    family: str, prefix: int, head_dim: int
) -> None:
    model = long_model(family, head_dim)
    if prefix:
        with_prefix(model, prefix)
    runner = Runner(model, 16)
    lengths = (1, PAGE_SIZE - 2, PAGE_SIZE, 2 * PAGE_SIZE - 1)
    texts = [some_ids(length + 3, seed) for seed, length in enumerate(lengths)]
    opened = [begin(runner, ids)[0] for ids in texts]
    for text, ids, length in zip(opened, texts, lengths, strict=True):
        read(runner, text, ids[:length])
    for extra in range(3):
        works = [
            Work(text, [ids[length + extra]], [(length + extra, 0)])
            for text, ids, length in zip(opened, texts, lengths, strict=True)
        ]
        for logits, ids, length in zip(runner.step(works), texts, lengths, strict=True):
            assert_relative(logits, expected(model, ids[: length + extra + 1])[-1], TOLERANCE)


@pytest.mark.parametrize("chunk", (1, 7, 16, PAGE_SIZE, 100))
@pytest.mark.parametrize("prefix", (0, 5))
@pytest.mark.parametrize("head_dim", (8, 16))
def test_all_logits_equal_the_forward_when_a_prompt_is_read_in_chunks(
    chunk: int, prefix: int, head_dim: int
) -> None:
    model = long_model(head_dim=head_dim)
    if prefix:
        with_prefix(model, prefix)
    runner, ids = Runner(model, 4), some_ids(150)
    text, _ = begin(runner, ids)
    parts = [
        read(runner, text, ids[at : at + chunk], wants="all") for at in range(0, len(ids), chunk)
    ]
    assert_relative(torch.cat(parts), expected(model, ids), TOLERANCE)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("chunk", (1, 16, 100))
@pytest.mark.parametrize("head_dim", (8, 16))
def test_logits_are_near_the_forward_when_the_cache_has_16_bits(
    dtype: torch.dtype, tolerance: float, chunk: int, head_dim: int
) -> None:
    model = long_model(head_dim=head_dim)
    runner, ids = Runner(model, 4, dtype), some_ids(150)
    text, _ = begin(runner, ids)
    parts = [
        read(runner, text, ids[at : at + chunk], wants="all") for at in range(0, len(ids), chunk)
    ]
    found, right = torch.cat(parts), expected(model, ids)
    assert_relative(found, right, tolerance)  # worst measured: 2.5e-4 and 2.4e-3
    assert not torch.equal(found, right)


def test_a_text_begins_with_the_pages_of_another_when_both_begin_alike() -> None:
    runner, ids = Runner(long_model(), 8), some_ids(150)
    first, cached = begin(runner, ids)
    assert cached == 0
    read(runner, first, ids)
    for is_open, whole in ((True, 2 * PAGE_SIZE), (False, 140)):
        other = ids[:140] + some_ids(9, seed=1)
        second, cached = begin(runner, other)
        assert cached == whole, "the last page is shared when its text has ended"
        logits = read(runner, second, other[cached:])
        assert_relative(logits, expected(runner.model, other)[-1], TOLERANCE)
        runner.close(second, keep=False)
        if is_open:
            runner.close(first)


def test_the_last_token_is_read_again_when_the_whole_text_is_known() -> None:
    runner, ids = Runner(long_model(), 8), some_ids(PAGE_SIZE)
    text, _ = begin(runner, ids)
    read(runner, text, ids)
    again, cached = begin(runner, ids)
    assert cached == PAGE_SIZE - 1
    assert_relative(read(runner, again, ids[-1:]), expected(runner.model, ids)[-1], TOLERANCE)


def test_a_context_is_shared_when_it_is_wholly_the_same() -> None:
    model, length = long_model("glm-base"), 100
    runner, ids = Runner(model, 12), some_ids(length + 2)
    places = [*straight(length), (30, 1), (30, 2)]
    for ending, hit in ((ids, 0), (ids, length + 1), ([*ids[:99], 3, *ids[100:]], 0)):
        text, cached = runner.open(ending, places, length)
        assert cached == hit
        logits = read(runner, text, ending[cached:], places[cached:])
        assert_relative(logits, expected(model, ending, places, length)[-1], TOLERANCE)
        runner.close(text)


def test_a_column_is_another_when_only_its_place_differs() -> None:
    model, ids = long_model("glm-base"), some_ids(12)
    runner = Runner(model, 4)
    for mask_at in (3, 5):
        places = [*straight(10), (mask_at, 1), (mask_at, 2)]
        text, cached = runner.open(ids, places, 10)
        assert cached == (0 if mask_at == 3 else 10)
        logits = read(runner, text, ids[cached:], places[cached:])
        assert_relative(logits, expected(model, ids, places, 10)[-1], TOLERANCE)
        runner.close(text)


@pytest.mark.parametrize("prefix", (0, 5))
@pytest.mark.parametrize("count", (3, 12, 40))
def test_a_context_sees_itself_when_it_is_read_beside_others(prefix: int, count: int) -> None:
    model = long_model("glm-base")
    if prefix:
        with_prefix(model, prefix)
    runner, texts, works = Runner(model, 12), [], []
    for seed in range(3):
        ids = some_ids(count + seed + 2, seed)
        places = [*straight(count + seed), (1, 1), (1, 2)]
        text, _ = runner.open(ids, places, count + seed)
        texts.append((ids, places, count + seed))
        works.append(Work(text, ids, places, ("all", "last", "none")[seed]))
    works.append(Work(begin(runner, [5])[0], [5], [(0, 0)]))
    results = runner.step(works)
    assert results[2] is None
    wanted = [expected(model, *one) for one in (*texts, ([5], [(0, 0)], 0))]
    for number, rows in ((0, slice(None)), (1, -1), (3, -1)):
        logits = results[number]
        assert logits is not None
        assert_relative(logits, wanted[number][rows], TOLERANCE)


@pytest.mark.parametrize("length", (PAGE_SIZE, 70))
def test_forks_go_their_own_ways_when_they_share_a_beginning(length: int) -> None:
    runner, ids = Runner(long_model(), 8), some_ids(length)
    text, _ = begin(runner, ids)
    read(runner, text, ids)
    forks = [text, runner.fork(text), runner.fork(text)]
    for step in range(3):
        works = [Work(fork, [9 * n + step], [(length + step, 0)]) for n, fork in enumerate(forks)]
        results = runner.step(works)
    for n, logits in enumerate(results):
        whole = [*ids, *(9 * n + step for step in range(3))]
        assert_relative(logits, expected(runner.model, whole)[-1], TOLERANCE)


@pytest.mark.parametrize("length", (0, 1, PAGE_SIZE - 1, PAGE_SIZE, 100, 130))
def test_a_text_goes_on_when_it_was_cropped(length: int) -> None:
    runner, ids = Runner(with_prefix(long_model()), 8), some_ids(131)
    text, _ = begin(runner, ids)
    read(runner, text, ids)
    keeper = runner.fork(text)
    runner.crop(text, length)
    other = [*ids[:length], *some_ids(40, seed=2)]
    read(runner, text, other[length:-1])
    results = runner.step([Work(text, other[-1:], [(len(other) - 1, 0)])])
    assert_relative(results[0], expected(runner.model, other)[-1], TOLERANCE)
    assert_relative(read(runner, keeper, [5]), expected(runner.model, [*ids, 5])[-1], TOLERANCE)


def test_kept_pages_are_given_away_when_others_need_them() -> None:
    model = long_model()
    runner = Runner(model, 4)
    for seed in range(6):
        ids = some_ids(100, seed)
        ids[0] = seed  # no two begin alike
        text, _ = begin(runner, ids)
        assert_relative(read(runner, text, ids), expected(model, ids)[-1], TOLERANCE)
        runner.close(text)
        assert runner.num_free_pages == 4
    assert begin(runner, ids)[1] == 99
    assert begin(runner, [0, *some_ids(100, 0)[1:]])[1] == 0


def test_known_columns_are_forgotten_when_the_weights_change() -> None:
    model = long_model()
    runner, ids = Runner(model, 4), some_ids(70)
    text, _ = begin(runner, ids)
    read(runner, text, ids)
    with torch.no_grad():
        model.final_norm.weight.mul_(2.0)
    runner.close(text)
    again, cached = begin(runner, ids)
    assert cached == 0
    assert_relative(read(runner, again, ids), expected(model, ids)[-1], TOLERANCE)
    runner.invalidate()
    runner.close(again)
    assert begin(runner, ids)[1] == 0


def test_no_text_has_read_anything_when_a_step_raises(monkeypatch) -> None:
    runner, ids = Runner(long_model(), 4), some_ids(80)
    first, second = begin(runner, ids)[0], begin(runner, ids)[0]
    calls = []
    forward = runner.model.forward

    def fails_later(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of luck")
        return forward(*arguments, **named)

    monkeypatch.setattr(runner.model, "forward", fails_later)
    works = [Work(text, ids, straight(80)) for text in (first, second)]
    with pytest.raises(RuntimeError, match="out of luck"):
        runner.step(works)
    assert first.length == second.length == 0
    for logits in runner.step(works):
        assert_relative(logits, expected(runner.model, ids)[-1], TOLERANCE)


def test_reserved_pages_are_there_when_others_want_them() -> None:
    runner, ids = Runner(long_model(), 4), some_ids(10)
    text, _ = begin(runner, ids)
    assert not runner.reserve(text, 4 * PAGE_SIZE + 1)
    assert runner.reserve(text, 100, forks=1, at=10)
    assert runner.num_free_pages == 0
    assert runner.room(text) == 2 * PAGE_SIZE
    other, _ = begin(runner, ids)
    with pytest.raises(PagesExhausted, match="of 4 pages is full"):
        read(runner, other, ids)
    read(runner, text, ids)
    fork = runner.fork(text)
    for one in (text, fork):
        read(runner, one, some_ids(90, seed=3))
        runner.close(one)
    assert runner.num_free_pages == 4


@pytest.mark.parametrize("head_dim", (8, 16))
def test_half_precision_differs_as_its_rounding_does_when_columns_are_cached(
    head_dim: int,
) -> None:
    model = long_model(head_dim=head_dim, dtype=torch.bfloat16)
    runner, ids = Runner(model, 4), some_ids(80)
    text, _ = begin(runner, ids)
    read(runner, text, ids[:-1])
    (logits,) = runner.step([Work(text, ids[-1:], [(79, 0)])])
    assert_relative(logits, expected(model, ids)[-1].float(), 2e-2)


def test_an_embedding_has_length_one_when_a_text_is_embedded() -> None:
    for family in ("glm-base", "chatglm2-6b"):
        runner, ids = Runner(long_model(family), 1), some_ids(30)
        prefix_len = 30 if family == "glm-base" else 0
        mask = PrefixLM((prefix_len,)) if prefix_len else Causal()
        mean = runner.model(torch.tensor([ids]), mask=mask)[0].mean(0)
        vector = runner.embed(ids)
        assert float(vector.norm()) == pytest.approx(1.0, abs=1e-6)
        assert_relative(vector, mean / mean.norm(), TOLERANCE)


def test_a_step_is_the_compiled_one_when_there_is_one(monkeypatch) -> None:
    runner, ids = Runner(long_model(), 4), some_ids(30)
    text, _ = begin(runner, ids)
    read(runner, text, ids)
    monkeypatch.setattr(runner.model, "forward", None)
    (logits,) = runner.step([Work(text, [3], [(30, 0)])])
    monkeypatch.undo()
    assert_relative(logits, expected(runner.model, [*ids, 3])[-1], TOLERANCE)


def test_an_answer_is_the_same_to_the_bit_when_others_are_decoded_with_it() -> None:
    runner, ids = Runner(long_model(), 40), some_ids(70)
    text, _ = begin(runner, ids)
    read(runner, text, ids)
    forks = [runner.fork(text) for _ in range(20)]
    for n, fork in enumerate(forks[1:]):
        read(runner, fork, some_ids(n + 2, seed=n))
    alone = read(runner, text, [7])
    works = [Work(fork, [7], [(fork.length, 0)]) for fork in forks]
    together = runner.step(works)[0]
    assert together is not None and torch.equal(alone, together)


def test_works_are_cut_into_parts_when_there_are_many(monkeypatch) -> None:
    monkeypatch.setattr(compute, "MOST_ROWS", 10)
    runner, works, texts = Runner(long_model(), 8), [], []
    for seed, count in enumerate((4, 6, 1, 9, 12, 3)):
        ids = some_ids(count, seed)
        texts.append(ids)
        works.append(Work(begin(runner, ids)[0], ids, straight(count)))
    for ids, logits in zip(texts, runner.step(works), strict=True):
        assert logits is not None
        assert_relative(logits, expected(runner.model, ids)[-1], TOLERANCE)


def test_logits_are_stacked_without_a_copy_when_they_lie_together() -> None:
    logits_BV = torch.rand(3, 5)
    together = stack_rows(logits_BV.unbind())
    assert together.data_ptr() == logits_BV.data_ptr() and torch.equal(together, logits_BV)
    apart = [logits_BV[0], logits_BV[2]]
    assert torch.equal(stack_rows(apart), logits_BV[[0, 2]])


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda runner, text: runner.open([], []), "a text of 0 ids"),
        (lambda runner, text: runner.open([1], [(0, 0)], 2), "a context of 2"),
        (lambda runner, text: read(runner, text, [1, 2]), "must be read in one piece"),
        (lambda runner, text: read(runner, text, [4, 4, 4, 4]), "as it was opened"),
        (lambda runner, text: runner.step([Work(text, [], [])]), "a work of 0 ids"),
        (lambda runner, text: runner.crop(text, 3), "cannot crop a text of 0 columns"),
        (lambda runner, text: runner.embed([]), "a text of 0 tokens cannot be embedded"),
        (
            lambda runner, text: (runner.close(text), read(runner, text, [1])),
            "closed cannot be read",
        ),
    ),
)
def test_a_call_is_refused_when_it_cannot_be_right(call, message: str) -> None:
    runner = Runner(long_model("glm-base"), 2)
    text, _ = begin(runner, [1, 2, 3, 4], 4)
    with pytest.raises(ValueError, match=message):
        call(runner, text)
