from __future__ import annotations

import pytest

from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.demo import text_scenes
from glm_core.demo.scenes import SceneContext
from glm_core.infer.blanks import Filled, FilledBlank
from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> SceneContext:
    """A tiny GLM with random weights, saved to a folder."""
    folder = tmp_path_factory.mktemp("model")
    texts = [cloze.text for cloze in text_scenes.CLOZES]
    tokenizer = ByteBPETokenizer.train(texts, vocab_size=300)
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_layers=1,
        num_heads=1,
        head_dim=16,
        ffn_hidden_size=32,
        max_position_embeddings=256,
        position="rope_2d",
    )
    model = Transformer(config)
    model.init_weights(0)
    save_pretrained(model, tokenizer, folder / "tiny")
    return SceneContext(output_dir=folder, train_seconds=1.0, model=str(folder / "tiny"), seed=3)


def filled(text: str, answer: str, start: int) -> Filled:
    blank = FilledBlank("[MASK]", answer, [1], -0.5, "stop_token", start)
    return Filled("a [MASK] c", text, [blank])


def test_every_blank_is_answered_when_the_scene_runs(context):
    result = text_scenes.FillBlanks().run(context)
    assert [len(fill["answers"]) for fill in result.data["fills"]] == [1, 1, 1, 1, 2, 1]
    assert len(result.text.splitlines()) >= len(text_scenes.CLOZES)
    assert sum("<mark>" in block for block in result.blocks) == len(text_scenes.CLOZES)


def test_every_prompt_is_continued_when_the_scene_runs(context):
    result = text_scenes.ContinueText().run(context)
    prompts = [row["prompt"] for row in result.data["continuations"]]
    assert prompts == list(text_scenes.PROMPTS)
    assert result.data["tokens_per_second"] > 0


def test_same_text_comes_out_when_the_seed_is_the_same(context):
    first, second = (text_scenes.ContinueText().run(context) for _ in range(2))
    assert first.data["continuations"] == second.data["continuations"]


def test_spaces_stay_outside_when_an_answer_brings_its_own():
    cut = text_scenes.pieces(filled("a  b c", "  b", 1))
    assert cut == [("a  ", False), ("b", True), (" c", False)]
    assert "".join(text for text, _ in cut) == "a  b c"


def test_each_blank_has_an_answer_when_a_cloze_is_written():
    for cloze in text_scenes.CLOZES:
        assert cloze.text.count("MASK]") == len(cloze.answers), cloze.text
