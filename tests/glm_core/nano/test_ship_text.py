"""The card of nano-text says what the run's files and the evaluation say."""

import json

import pytest

from glm_core.nano.ship_text import SAMPLES, card, training_facts

ROWS = [
    {"step": 10, "samples": 40, "loss": 5.0, "tokens_per_second": 100.0},
    {"step": 20, "samples": 80, "loss": 4.0, "tokens_per_second": 50.0, "eval_loss": 4.25},
]


def write_run(folder, rows):
    (folder / "config.yaml").write_text("data:\n  seq_length: 10\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_training_facts_add_up_the_time_of_every_window(tmp_path):
    write_run(tmp_path, ROWS)
    facts = training_facts(tmp_path)
    assert (facts["steps"], facts["tokens"]) == (20, 800)
    assert facts["seconds"] == 40 * 10 / 100 + 40 * 10 / 50
    assert (facts["loss"], facts["heldout_loss"]) == (4.0, 4.25)


def test_run_without_held_out_loss_is_refused_with_the_remedy(tmp_path):
    write_run(tmp_path, ROWS[:1])
    with pytest.raises(ValueError, match="no held-out loss: train with trainer.eval_every above 0"):
        training_facts(tmp_path)


def test_card_shows_measures_fills_and_note(tmp_path):
    write_run(tmp_path, ROWS)
    accuracy = {"accuracy": 0.25, "right": 1, "count": 4}
    evaluation = {
        "model": "nano-text",
        "data": "installed-text",
        "bits_per_byte": 1.2345,
        "token_perplexity": 20.0,
        "documents": 3,
        "bytes": 4000,
        "tokens": 1000,
        "parameters": 9_300_000,
        "blanks": {"one_word": accuracy, "short_span": accuracy},
        "last_word": {"unidirectional": accuracy},
    }
    split = {"documents": 2, "bytes": 10**6, "tokens": 5, "sha256": "ab" * 32}
    measured = {
        "shipped": evaluation,
        "unquantized": {"bits_per_byte": 1.2222},
        "training": training_facts(tmp_path),
        "corpus": {"train": split, "heldout": split},
        "fills": [f"filled {number}" for number in range(len(SAMPLES))],
    }
    text = card(measured, 9_900_000, "The first steps had other data.")
    for expected in ("9.3 M", "1.2222", "1.2345", "9.90 MB", "filled 4", "other data.", "4.250"):
        assert expected in text
