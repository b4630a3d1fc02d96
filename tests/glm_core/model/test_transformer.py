"""What every member of the family does: positions, head, loss, cache, precision, compilation."""

import pytest
import torch
import torch.nn.functional as F

from glm_core.attention import BACKENDS, Causal, LeftPadded, PrefixLM, RightPadded
from glm_core.model import Transformer
from glm_core.testing import TINY_FAMILIES, assert_relative, relative_error, tiny_config, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

VOCAB = 67


def ids_for(batch=2, length=9):
    return torch.randint(0, VOCAB, (batch, length))


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_parameter_learns(family):
    model = tiny_model(family)
    ids = ids_for()
    positions = torch.randint(0, 48, (2, 2, 9))
    model.loss(model(ids, positions), ids)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_positions_count_up_from_zero_when_none_are_given(family):
    model = tiny_model(family)
    ids = ids_for()
    positions_BT = torch.arange(9).expand(2, 9)
    positions_B2T = torch.stack([positions_BT, torch.zeros_like(positions_BT)], dim=1)
    expected = model(ids)
    assert torch.equal(model(ids, positions_BT), expected)
    assert torch.equal(model(ids, positions_B2T), expected)
    assert not torch.equal(model(ids, positions_BT + torch.arange(9)), expected)


@pytest.mark.parametrize("shape", [(2, 8), (2, 3, 9), (1, 2, 9), (9,)])
def test_positions_of_another_shape_are_refused(shape):
    message = (
        r"position_ids has shape .*: for input_ids of shape \(2, 9\) it must be "
        r"\(2, 2, 9\) or \(2, 9\)"
    )
    with pytest.raises(ValueError, match=message):
        tiny_model("glm-base")(ids_for(), torch.zeros(shape, dtype=torch.int64))


def test_mask_of_another_batch_is_refused():
    with pytest.raises(ValueError, match="mask PrefixLM describes 3 rows but the batch has 2"):
        tiny_model("glm-base")(ids_for(), mask=PrefixLM((1, 2, 3)))


def test_mask_is_causal_when_none_is_given():
    model = tiny_model("glm-base")
    ids = ids_for()
    assert torch.equal(model(ids), model(ids, mask=Causal()))
    changed = ids.clone()
    changed[:, 5] = (ids[:, 5] + 1) % VOCAB
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(-1).all()


def test_head_is_the_embedding_when_tied():
    model = tiny_model("glm-base", tie_embeddings=True)
    assert model.output_layer is None
    assert "output_layer.weight" not in model.state_dict()
    hidden = torch.randn(3, 32)
    assert torch.equal(model.logits(hidden), hidden @ model.word_embeddings.weight.T)


def test_head_is_its_own_when_untied():
    model = tiny_model("glm-base", tie_embeddings=False)
    hidden = torch.randn(2, 3, 32)
    assert model.logits(hidden).shape == (2, 3, VOCAB)
    assert torch.equal(model.logits(hidden), hidden @ model.output_layer.weight.T)


@pytest.mark.parametrize("tied", [True, False])
def test_loss_equals_cross_entropy(tied):
    model = tiny_model("glm-base", tie_embeddings=tied)
    labels = ids_for()
    labels[0, :4] = -100
    labels[1, 7] = -100
    total, count = model.loss(model(labels.clamp(min=0)), labels)
    total.backward()
    weight = model.head_weight_VD.grad.clone()
    model.zero_grad()
    logits = model.logits(model(labels.clamp(min=0)))
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    expected.backward()
    assert count.item() == 13
    assert count.dtype == torch.int64
    assert total.dtype == torch.float32 and total.shape == ()
    assert_relative(total, expected, 1e-6, "loss")  # measured 6.8e-8
    assert_relative(weight, model.head_weight_VD.grad, 1e-6, "loss gradient")  # measured 6.2e-8


def test_loss_is_zero_when_nothing_is_labelled():
    model = tiny_model("llama-7b")
    total, count = model.loss(model(ids_for()), torch.full((2, 9), -100))
    total.backward()
    assert (total.item(), count.item()) == (0.0, 0)
    assert not model.word_embeddings.weight.grad.any()


def test_gradient_shrink_leaves_the_forward_alone():
    plain = tiny_model("glm-130b", embedding_grad_scale=1.0, tie_embeddings=False)
    shrunk = tiny_model("glm-130b", embedding_grad_scale=0.1, tie_embeddings=False)
    ids = ids_for()
    assert torch.equal(plain(ids), shrunk(ids))
    for model in (plain, shrunk):
        model.loss(model(ids), ids)[0].backward()
    gradients = [model.word_embeddings.weight.grad for model in (plain, shrunk)]
    assert_relative(gradients[1], 0.1 * gradients[0], 2e-7)  # measured 5.2e-8
    assert torch.equal(plain.output_layer.weight.grad, shrunk.output_layer.weight.grad)


class ListCache:
    """The least that serves as a cache."""

    def __init__(self, num_layers):
        self.length = 0
        self.layers = [[] for _ in range(num_layers)]

    def append(self, layer, k_BTKH, v_BTKH):
        self.layers[layer].append((k_BTKH, v_BTKH))
        keys, values = zip(*self.layers[layer], strict=True)
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def advance(self, count):
        self.length += count


CACHED_MASKS = {
    "causal": Causal(),
    "prefix": PrefixLM((5, 3)),
    "left": LeftPadded(PrefixLM((4, 2)), (0, 2)),
}


@pytest.mark.parametrize("mask", CACHED_MASKS)
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_cached_steps_equal_one_forward(family, mask):
    model = tiny_model(family)
    ids, positions = ids_for(2, 11), torch.randint(0, 48, (2, 2, 11))
    with torch.no_grad():
        expected = model(ids, positions, CACHED_MASKS[mask])
        cache, parts = ListCache(model.config.num_blocks), []
        for start, stop in ((0, 6), (6, 7), (7, 10), (10, 11)):
            part = ids[:, start:stop], positions[..., start:stop]
            parts.append(model(*part, CACHED_MASKS[mask], cache))
    assert cache.length == 11
    assert_relative(torch.cat(parts, dim=1), expected, 1e-6, f"{family} cached")  # worst 3.2e-7


def test_positions_go_on_from_the_cache_when_none_are_given():
    model = tiny_model("glm-4-9b")
    ids = ids_for()
    with torch.no_grad():
        cache = ListCache(2)
        parts = [model(ids[:, :4], kv_cache=cache), model(ids[:, 4:], kv_cache=cache)]
        assert_relative(torch.cat(parts, dim=1), model(ids), 1e-6)  # measured 2.8e-7


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_padded_batch_equals_single_rows(family, side):
    model = tiny_model(family)
    lengths, prefixes, width = (9, 4, 7), (3, 4, 0), 9
    ids, positions = torch.zeros(3, width, dtype=torch.int64), torch.zeros(3, 2, width).long()
    for row, length in enumerate(lengths):
        columns = slice(width - length, width) if side == "left" else slice(0, length)
        ids[row, columns] = torch.randint(0, VOCAB, (length,))
        positions[row, :, columns] = torch.randint(0, 48, (2, length))
    pads = tuple(width - length for length in lengths)
    inner = PrefixLM(prefixes)
    mask = LeftPadded(inner, pads) if side == "left" else RightPadded(inner, lengths)
    with torch.no_grad():
        batched = model(ids, positions, mask)
        for row, length in enumerate(lengths):
            columns = slice(width - length, width) if side == "left" else slice(0, length)
            single = model(
                ids[row : row + 1, columns],
                positions[row : row + 1, :, columns],
                PrefixLM((prefixes[row],)),
            )
            assert_relative(batched[row, columns], single[0], 1e-6, family)  # worst 1.6e-7


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_bf16_autocast_stays_near_fp32(family, backend):
    model = tiny_model(family, attention_backend=backend)
    ids, labels = ids_for(), ids_for()
    expected = model(ids, mask=PrefixLM((4, 2)))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(ids, mask=PrefixLM((4, 2)))
        total, _ = model.loss(hidden, labels)
    total.backward()
    assert total.dtype == torch.float32
    assert model.word_embeddings.weight.grad.dtype == torch.float32
    assert_relative(hidden.float(), expected, 3e-2, f"{family} bf16")  # worst 9.3e-3
    assert_relative(total, model.loss(expected, labels)[0], 1e-2, f"{family} bf16-loss")


# Worst measured: bf16 1.5e-2, fp16 1.7e-3.
HALF_TOLERANCE = {torch.bfloat16: 4e-2, torch.float16: 5e-3}


@pytest.mark.parametrize("dtype", HALF_TOLERANCE)
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_half_precision_weights_stay_near_fp32(family, dtype):
    model = tiny_model(family)
    ids = ids_for()
    mask = LeftPadded(PrefixLM((4, 2)), (0, 3))
    with torch.no_grad():
        expected = model.logits(model(ids, mask=mask))
        hidden = model.to(dtype)(ids, mask=mask)
        actual = model.logits(hidden)
    assert hidden.dtype == actual.dtype == dtype
    assert_relative(actual.float(), expected, HALF_TOLERANCE[dtype], f"{family} {dtype}")


@pytest.mark.parametrize(
    "family", ["glm-base", "glm-130b", "chatglm-6b", "glm-4-9b-0414", "codegeex-13b"]
)
def test_compiled_blocks_equal_eager_ones(family):
    torch._dynamo.reset()
    plain, compiled = tiny_model(family), tiny_model(family)
    for block in compiled.blocks():
        block.compile(backend="aot_eager", fullgraph=True)
    ids, positions = ids_for(), torch.randint(0, 48, (2, 2, 9))
    for model in (plain, compiled):
        model.loss(model(ids, positions, PrefixLM((4, 2))), ids)[0].backward()
    gradients = dict(compiled.named_parameters())
    for name, parameter in plain.named_parameters():
        # Worst 2.5e-6: the compiler sums in another order.
        assert_relative(gradients[name].grad, parameter.grad, 1e-5, f"{family} compiled")


def test_dropout_is_for_training_alone():
    model = tiny_model("glm-base", hidden_dropout=0.2, attention_dropout=0.2)
    ids = ids_for()
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert relative_error(model(ids), model(ids)) > 0.01


def test_flex_with_attention_dropout_is_refused_in_training_alone():
    model = tiny_model("glm-base", attention_backend="flex", attention_dropout=0.2)
    model(ids_for())
    with pytest.raises(ValueError, match="attention backend 'flex' cannot be used"):
        model.train()(ids_for())


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["auto", *(name for name in BACKENDS if name != "xformers")])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_cuda_equals_cpu(family, backend):
    ids, positions, mask = ids_for(), torch.randint(0, 48, (2, 2, 9)), PrefixLM((4, 2))
    # Heads of 16: the smallest that flex_attention's kernel takes.
    shape = {"head_dim": 16, "hidden_size": 64}
    if tiny_config(family).is_rotary:
        shape["rotary_dim"] = 16
    cpu, cuda = tiny_model(family, **shape), tiny_model(family, attention_backend=backend, **shape)
    expected = cpu(ids, positions, mask)
    actual = cuda.cuda()(ids.cuda(), positions.cuda(), mask)
    assert_relative(actual, expected, 5e-3, f"{family} {backend} cuda")


def test_model_builds_on_the_meta_device_and_takes_weights_later():
    with torch.device("meta"):
        model = Transformer(tiny_config("glm-4-9b"))
    model = model.to_empty(device="cpu")
    model.init_weights(0)
    assert model(ids_for()).isfinite().all()
