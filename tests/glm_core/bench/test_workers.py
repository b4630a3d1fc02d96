"""The two contenders of `glm bench train` do the same work."""

import torch
from transformers import GlmForCausalLM

from glm_core.bench.shapes import TRAIN_SHAPES, TrainShape
from glm_core.bench.workers import CausalTask, causal_batches, peer_config, random_tokens
from glm_core.data.batch import IGNORE
from glm_core.model import Transformer

TINY = TrainShape(32, 2, 4, 48, 96, batch_size=2, seq_length=16)


def test_contenders_have_equally_many_parameters():
    with torch.device("meta"):
        for shape in TRAIN_SHAPES.values():
            ours = sum(p.numel() for p in Transformer(shape.config()).parameters())
            theirs = sum(p.numel() for p in GlmForCausalLM(peer_config(shape)).parameters())
            assert ours == theirs


def test_contenders_compute_the_same_loss_when_weights_are_equal():
    torch.manual_seed(0)
    peer = GlmForCausalLM(peer_config(TINY)).eval()
    task = CausalTask(TINY)
    model = task.build_model()
    state = {
        "word_embeddings.weight": peer.model.embed_tokens.weight,
        "final_norm.weight": peer.model.norm.weight,
    }
    for number, layer in enumerate(peer.model.layers):
        attention, prefix = layer.self_attn, f"layers.{number}."
        qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
        state |= {
            prefix + "input_norm.weight": layer.input_layernorm.weight,
            prefix + "attention.query_key_value.weight": torch.cat([p.weight for p in qkv]),
            prefix + "attention.query_key_value.bias": torch.cat([p.bias for p in qkv]),
            prefix + "attention.dense.weight": attention.o_proj.weight,
            prefix + "post_attention_norm.weight": layer.post_attention_layernorm.weight,
            prefix + "mlp.dense_h_to_4h.weight": layer.mlp.gate_up_proj.weight,
            prefix + "mlp.dense_4h_to_h.weight": layer.mlp.down_proj.weight,
        }
    model.load_state_dict(state)
    batch = next(causal_batches(TINY, start=0))
    loss = task.loss(model, batch)
    expected = peer(input_ids=batch.input_ids, labels=batch.input_ids).loss
    # fp32, measured 1e-7
    torch.testing.assert_close(loss.total / loss.weight, expected, rtol=1e-6, atol=0)


def test_batches_follow_the_step_when_training_resumes():
    batches = causal_batches(TINY, start=3 * TINY.batch_size)
    batch = next(batches)
    assert torch.equal(batch.input_ids, random_tokens(TINY, 3)[:, :-1])
    assert (batch.labels[:, -1] == IGNORE).all()
