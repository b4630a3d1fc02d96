"""P-tuning v2: what a prefix does to a model. Its numbers are checked in tests/glm_core/model."""

import pytest
import torch

from glm_core.attention import Full, LeftPadded, PrefixLM
from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.kv_cache import KVCache
from glm_core.testing import TINY_FAMILIES, assert_relative, randomize, relative_error, tiny_model
from glm_core.tokenizer import ByteBPETokenizer
from glm_core.train.blocks import recompute_blocks
from glm_core.tune.prefix import PrefixEncoder, prefix_width

TEXT = "The with statement wraps a block of code. The return statement ends a function. größe "
COUNT = 5


def prefixed_model(family, count=COUNT, seed=0, **fields):
    """A tiny model with a random prefix, in evaluation mode."""
    model = tiny_model(family, seed=seed, **fields)
    model.prefix = PrefixEncoder(model.config, count).eval()
    randomize(model.prefix, seed=seed + 1)
    return model


def draw(length=11, rows=2):
    return torch.randint(0, 67, (rows, length)), torch.randint(0, 48, (rows, 2, length))


@pytest.mark.parametrize(
    ("family", "numbers"),
    # Blocks x 2 x key/value heads x head size; CodeGeeX has its top-query layer besides.
    [
        ("chatglm-6b", 2 * 2 * 4 * 8),
        ("chatglm2-6b", 2 * 2 * 2 * 8),
        ("codegeex-13b", 3 * 2 * 4 * 8),
    ],
)
def test_sizes_are_those_of_the_originals(family, numbers):
    config = tiny_model(family).config
    assert prefix_width(config) == numbers
    assert shapes(PrefixEncoder(config, 7)) == {"embedding.weight": (7, numbers)}
    assert shapes(PrefixEncoder(config, 7, projection=True)) == {
        "embedding.weight": (7, 32),
        "trans.0.weight": (32, 32),
        "trans.0.bias": (32,),
        "trans.2.weight": (numbers, 32),
        "trans.2.bias": (numbers,),
    }
    grouped = PrefixEncoder(config, 7, True, 24, projection_input_size=numbers)
    assert shapes(grouped)["embedding.weight"] == (7, numbers)
    assert shapes(grouped)["trans.0.weight"] == (24, numbers)
    assert shapes(grouped)["trans.2.weight"] == (numbers, 24)


def shapes(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_length_must_be_positive():
    with pytest.raises(ValueError, match="prefix_len is 0: it must be positive"):
        PrefixEncoder(tiny_model("glm-base").config, 0)


def test_prefix_is_dropped_out_in_training_alone():
    encoder = PrefixEncoder(tiny_model("chatglm2-6b").config, 50)
    torch.nn.init.ones_(encoder.embedding.weight)
    dropped = torch.stack([k for pair in encoder(torch.float32) for k in pair])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert dropped.max().item() == pytest.approx(1 / 0.9)
    kept = torch.stack([k for pair in encoder.eval()(torch.float16) for k in pair])
    assert kept.dtype == torch.float16 and (kept == 1).all()


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_cached_steps_equal_one_forward_when_prefixed(family):
    model = prefixed_model(family)
    ids, positions = draw()
    mask = LeftPadded(PrefixLM((4, 2)), (0, 2))
    with torch.no_grad():
        expected = model(ids, positions, mask)
        cache, parts = KVCache.for_model(model.config, 2, COUNT + 11), []
        for start, stop in ((0, 6), (6, 7), (7, 10), (10, 11)):
            part = ids[:, start:stop], positions[..., start:stop]
            parts.append(model(*part, mask, cache))
        assert cache.length == COUNT + 11
        cache.crop(COUNT + 10)
        last = model(ids[:, 10:], positions[..., 10:], mask, cache)
    assert_relative(torch.cat(parts, dim=1), expected, 1e-6, f"{family} cached")  # worst 4.1e-7
    assert_relative(last, expected[:, 10:], 2e-6, f"{family} cropped")  # worst 5.8e-7


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_positions_of_the_text_are_those_without_prefix(family):
    model = prefixed_model(family)
    ids = draw()[0]
    with torch.no_grad():
        cache = KVCache.for_model(model.config, 2, COUNT + 11)
        parts = [model(ids[:, :4], kv_cache=cache), model(ids[:, 4:], kv_cache=cache)]
        expected = model(ids, torch.arange(11).expand(2, 11))
    assert torch.equal(model(ids), expected)
    assert_relative(torch.cat(parts, dim=1), expected, 1e-6)  # worst measured 4.2e-7


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_padded_batch_equals_single_rows_when_prefixed(family):
    model = prefixed_model(family)
    ids, positions = draw(9, 3)
    pads, prefixes = (0, 5, 2), (3, 4, 0)
    with torch.no_grad():
        batched = model(ids, positions, LeftPadded(PrefixLM(prefixes), pads))
        for row, pad in enumerate(pads):
            part = ids[row : row + 1, pad:], positions[row : row + 1, :, pad:]
            single = model(*part, PrefixLM((prefixes[row],)))
            assert_relative(batched[row, pad:], single[0], 1e-6, family)  # worst 2.7e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_prefix_takes_the_dtype_of_the_model(dtype):
    model = prefixed_model("chatglm2-6b")
    ids = draw()[0]
    expected = model(ids)
    actual = model.to(dtype)(ids)
    model.prefix.float()  # as the originals keep it while training
    assert_relative(actual.float(), expected, 3e-2)  # measured 9.0e-3
    assert_relative(model(ids).float(), expected, 3e-2)
    assert model(ids).dtype == dtype


def test_prefix_learns_while_blocks_are_recomputed():
    ids, positions = draw()
    gradients = []
    for recompute in (False, True):
        model = prefixed_model("chatglm-6b")
        model.requires_grad_(False)
        model.prefix.requires_grad_(True)
        if recompute:
            recompute_blocks(model)
        model.loss(model(ids, positions, PrefixLM((4, 2))), ids)[0].backward()
        gradients.append(model.prefix.embedding.weight.grad)
    assert gradients[0].abs().min() > 0
    assert_relative(gradients[1], gradients[0], 1e-6)  # measured 0


def test_gradient_of_the_prefix_is_the_slope_of_the_loss():
    model = prefixed_model("codegeex-13b").double()
    ids, positions = draw()
    mask = LeftPadded(PrefixLM((4, 2)), (0, 2))
    weight = model.prefix.embedding.weight

    def loss():
        logits = model.logits(model(ids, positions, mask)).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, ids.flatten())

    loss().backward()
    step = 1e-6 * weight.grad.sign()
    with torch.no_grad():
        weight += step
        above = loss()
        weight -= 2 * step
        slope = (above - loss()) / 2e-6
    assert_relative(weight.grad.abs().sum(), slope, 1e-6)  # measured 1.2e-9


@pytest.fixture(scope="module")
def tokenizer():
    return ByteBPETokenizer.train([TEXT] * 4, vocab_size=300)


def speaking_model(family, tokenizer):
    """Untied, so that an answer is more than its first token again and again."""
    return prefixed_model(
        family,
        max_position_embeddings=96,
        vocab_size=tokenizer.vocab_size,
        prompt_frame="auto",
        tie_embeddings=False,
    )


@pytest.mark.parametrize("family", ["glm-base", "chatglm-6b", "llama-7b", "codegeex-13b"])
def test_generator_decodes_by_the_definition_when_prefixed(family, tokenizer):
    """Unequal lengths, several blanks and settled rows, against one whole forward a token."""
    model = speaking_model(family, tokenizer)
    generator = TextGenerator(model, tokenizer)
    texts = ["The with statement", "The", "größe of code. The return statement ends"]
    config = SamplingConfig(max_new_tokens=9, min_new_tokens=9)
    together = generator.generate(texts, config)
    assert [c.tokens for c in together] == [greedy(model, tokenizer, text, 9) for text in texts]
    model.prefix = None
    (without,) = generator.generate(texts[0], config)
    assert without.tokens != together[0].tokens


def greedy(model, tokenizer, text, count):
    """The answer to one prompt, without a cache."""
    ids = tokenizer.encode(text)
    has_blanks = model.config.generation_layout != "causal"
    if has_blanks:
        ids = [tokenizer.cls_id, *ids, tokenizer.gmask_id]
    context, answer = len(ids), []
    places = [(column, 0) for column in range(context)]
    if has_blanks:
        ids, places = [*ids, tokenizer.sop_id], [*places, (context - 1, 1)]
    for step in range(count):
        positions = torch.tensor([places]).transpose(1, 2)
        mask = PrefixLM((context if has_blanks else 0,))
        with torch.no_grad():
            logits = model.logits(model(torch.tensor([ids]), positions, mask)[0, -1])
        logits[list(tokenizer.special_ids)] = float("-inf")
        answer.append(int(logits.argmax()))
        ids = [*ids, answer[-1]]
        places = [*places, (context - 1, step + 2) if has_blanks else (context + step, 0)]
    return answer


def test_several_blanks_are_filled_alike_alone_and_together_when_prefixed(tokenizer):
    model = speaking_model("glm-base", tokenizer)
    generator = TextGenerator(model, tokenizer)
    texts = ["The [MASK] wraps [MASK] of code", "The return [MASK] ends a [sMASK]", "The [gMASK]"]
    configs = [SamplingConfig(max_new_tokens=n, temperature=1.0, seed=n) for n in (4, 7, 5)]
    together = generator.fill_batch(texts, configs)
    for text, config, filled in zip(texts, configs, together, strict=True):
        alone = generator.fill(text, config)
        assert alone.text == filled.text
        for blank, expected in zip(alone.blanks, filled.blanks, strict=True):
            assert blank.tokens == expected.tokens
            assert blank.logprob == pytest.approx(expected.logprob, abs=1e-4)  # measured 5e-6
    beams = SamplingConfig(max_new_tokens=4, num_beams=3)
    assert generator.fill(texts[0], beams).text == generator.fill_batch(texts, beams)[0].text


def test_prefix_matters_to_every_block():
    model = prefixed_model("codegeex-13b")
    ids = draw()[0]
    before = model(ids, mask=Full())
    width = prefix_width(model.config) // model.config.num_blocks
    for block in range(model.config.num_blocks):
        other = prefixed_model("codegeex-13b")
        with torch.no_grad():
            other.prefix.embedding.weight[:, block * width : (block + 1) * width] += 1.0
        assert relative_error(other(ids, mask=Full()), before) > 1e-3, block
