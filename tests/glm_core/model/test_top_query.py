"""CodeGeeX's top-query layer. Its numbers are checked in test_oracle_parity."""

import torch

from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.kv_cache import KVCache
from glm_core.testing import tiny_model
from glm_core.tokenizer import ByteBPETokenizer

BLOCK = "top_query.block"


def test_parameters_are_a_table_and_an_ordinary_block():
    model = tiny_model("codegeex-13b")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["top_query.embedding.weight"] == (48, 32)
    assert shapes["positions.position_embeddings.weight"] == (48, 32)
    layer = {
        name.removeprefix("layers.0."): shape for name, shape in shapes.items() if "0." in name
    }
    top = {name.removeprefix(BLOCK + "."): shape for name, shape in shapes.items() if BLOCK in name}
    assert top == {name: layer[name] for name in top} and len(top) == 12
    assert top["attention.query_key_value.weight"] == (96, 32)
    assert [block.attention.layer for block in model.blocks()] == [0, 1, 2]


def test_cache_has_a_slot_behind_the_layers():
    model = tiny_model("codegeex-13b")
    cache = KVCache.for_model(model.config, batch=1, max_len=4)
    model(torch.randint(0, 67, (1, 4)), kv_cache=cache)
    assert len(cache.keys) == 3
    assert all(keys.abs().sum() > 0 for keys in cache.keys)


def test_query_is_the_row_of_the_position_and_of_no_other():
    model, other = tiny_model("codegeex-13b"), tiny_model("codegeex-13b")
    with torch.no_grad():
        other.top_query.embedding.weight[5] += 1.0
    ids = torch.randint(0, 67, (1, 9))
    changed = (model(ids) != other(ids)).any(-1)[0]
    assert changed.tolist() == [column == 5 for column in range(9)]


def test_final_norm_stands_below_and_not_above():
    model = tiny_model("codegeex-13b")
    ids = torch.randint(0, 67, (1, 6))
    doubled = tiny_model("codegeex-13b")
    with torch.no_grad():
        # Keys, values and the feed-forward network see normed inputs: what a doubled final norm
        # changes most is the residual stream, which leaves unnormed.
        doubled.final_norm.weight *= 2
        doubled.final_norm.bias *= 2
        for block in (model.top_query.block, doubled.top_query.block):
            block.attention.dense.weight.zero_()
            block.attention.dense.bias.zero_()
            block.mlp.dense_4h_to_h.weight.zero_()
            block.mlp.dense_4h_to_h.bias.zero_()
    assert torch.equal(doubled(ids), 2 * model(ids))


def test_answer_ends_with_the_last_row_of_the_tables():
    text = "def add(a, b): return a + b "
    tokenizer = ByteBPETokenizer.train([text] * 4, vocab_size=290)
    model = tiny_model("codegeex-13b", vocab_size=tokenizer.vocab_size)
    config = SamplingConfig(max_new_tokens=100, min_new_tokens=100)
    (completion,) = TextGenerator(model, tokenizer).generate("def add", config)
    assert completion.finish_reason == "context"
    assert len(completion.tokens) == 48 - len(tokenizer.encode("def add"))
