"""The search for block sizes, on the kernels as Triton's interpreter runs them."""

import json

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from glm_core.bench.race import Runner
from glm_core.bench.tune_triton import OPS, KernelSizes, kernel_steps, search
from glm_kernels import measured
from glm_kernels.triton import tuning, weight_only
from glm_kernels.triton.launch import unavailable

CPU = torch.device("cpu")
TINY = KernelSizes(batch=2, columns=20, num_heads=2, rows=70, features=(48, 128))
STEPS = {step.what: step for step in kernel_steps(CPU, TINY)}

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def watch_of(cost):
    """A watch that runs each way once, and then takes what the config costs."""

    def watch(calls):
        assert all(isinstance(call, Runner) for call in calls)
        return len(calls) * cost(json.loads(calls[0].name))

    return watch


def fewer_warps(config):
    return [{**config, "num_warps": config["num_warps"] // 2}] if config["num_warps"] > 2 else []


def test_every_class_of_shapes_is_measured_the_most_common_first():
    assert {f"{op} {shape}" for op in OPS for shape in tuning.shapes(op)} == set(STEPS)
    assert list(STEPS)[:3] == ["weight_only_vector b4", "attention_forward few"] + [
        "attention_grad_q h64"
    ]
    assert set(OPS) == set(tuning._DEFAULTS)


@pytest.mark.parametrize(
    "what",
    [
        "attention_forward few",
        "attention_forward h16",
        "attention_grad_q h16w",
        "attention_grad_kv h16",
        "weight_only_vector b4",
        "weight_only_matrix m16",
        "weight_only_matrix default",
        "weight_only_dequantize b8",
    ],
)
def test_launch_takes_the_config_that_was_fastest(what, tmp_path, monkeypatch):
    op, shape = what.split()
    built_in = tuning.built_in(op, shape, CPU)
    # Few ways: each is a run of the interpreter.
    monkeypatch.setattr(tuning, "candidates", lambda op: [built_in])
    monkeypatch.setattr(tuning, "neighbours", fewer_warps)
    table = measured.Table()
    finding = STEPS[what].measure(table, watch_of(lambda config: config["num_warps"]))
    assert finding.chosen != finding.built_in
    (config,) = table.configs[op].values()
    assert config == {**built_in, "num_warps": 2}
    assert finding.gain == built_in["num_warps"] / 2
    path = tmp_path / "table.json"
    monkeypatch.setenv(measured.TABLE_VARIABLE, str(path))
    measured.write_table(table, CPU, path)
    assert tuning.lookup(op, shape, CPU) == config
    monkeypatch.undo()
    measured.forget()


def test_config_that_gives_another_result_takes_no_part(monkeypatch, caplog):
    wrong = {"BLOCK_W": 64, "num_warps": 1}
    monkeypatch.setattr(tuning, "candidates", lambda op: [wrong])
    monkeypatch.setattr(tuning, "neighbours", lambda config: [])
    lookup = weight_only.lookup

    def broken(op, shape, device):
        config = lookup(op, shape, device)
        # as a miscompiled kernel would, this one leaves most of the words out
        return {**config, "W": 1} if config == wrong else config

    run = weight_only._matrix_vector

    class Launcher:
        def __getitem__(self, grid):
            def launch(*arguments, W=None, **settings):
                *head, words, group_words = arguments
                run[grid](*head, W or words, group_words, **settings)

            return launch

    monkeypatch.setattr(weight_only, "lookup", broken)
    monkeypatch.setattr(weight_only, "_matrix_vector", Launcher())
    table = measured.Table()
    finding = STEPS["weight_only_vector b4"].measure(table, watch_of(lambda c: c["num_warps"]))
    assert finding.chosen == finding.built_in
    assert '{"BLOCK_W": 64, "num_warps": 1} takes no part: its result is wrong' in caplog.text


def as_seconds(cost):
    return lambda configs: {json.dumps(config): cost(config) for config in configs}


def test_search_walks_to_the_best_over_neighbours():
    start = {"BLOCK_M": 32, "num_warps": 4}
    best, gain = search(
        start, [start], as_seconds(lambda c: 256 / c["BLOCK_M"] + abs(c["num_warps"] - 2))
    )
    assert best == {"BLOCK_M": 256, "num_warps": 2}
    assert gain == (256 / 32 + 2) / 1


def test_search_stays_when_a_neighbour_is_hardly_faster():
    start = {"BLOCK_M": 32, "num_warps": 4}
    best, gain = search(start, [start], as_seconds(lambda c: 1 - 0.01 * (c != start)))
    assert (best, gain) == (start, 1.0)


def test_search_takes_what_runs_when_the_built_in_choice_does_not():
    start, other = {"num_warps": 8}, {"num_warps": 2}

    def measure(configs):
        return {json.dumps(other): 1.0} if other in configs else {}

    best, gain = search(start, [start, other], measure)
    assert best == other and gain == float("inf")
    assert search(start, [start], lambda configs: {}) == (None, 0.0)


@pytest.mark.parametrize("op", OPS)
def test_neighbours_differ_in_one_setting_by_one_step(op):
    for config in tuning.candidates(op):
        for other in tuning.neighbours(config):
            changed = [name for name in config if config[name] != other[name]]
            assert len(changed) == 1 and other.keys() == config.keys()
    assert {"num_warps": 2} in tuning.neighbours({"num_warps": 1})
    assert len(tuning.neighbours({"num_warps": 1})) == 1
