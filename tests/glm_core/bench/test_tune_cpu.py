"""Settings of the CPU are measured and then hold."""

import pytest
import torch

from glm_core.bench import tune_cpu
from glm_core.bench.race import Runner
from glm_core.bench.shapes import TrainShape
from glm_core.bench.tune_cpu import CpuSizes, cpu_steps
from glm_core.train.precision import built_in_precision, resolve_precision
from glm_core.train.trainer_config import Precision
from glm_kernels.cpu import library
from glm_kernels.measured import Table, use_table

CPU = torch.device("cpu")
SHAPE = TrainShape(64, 1, 2, 64, 96, batch_size=2, seq_length=12)
STEPS = {step.what: step for step in cpu_steps(CpuSizes(SHAPE, SHAPE, columns=5, rows=(4, 16, 32)))}

compiled = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")


def watch_of(cost):
    """A watch that runs nothing: a way takes what `cost` says of its name and its call."""

    def watch(calls):
        assert all(isinstance(call, Runner) for call in calls)
        return len(calls) * cost(calls[0])

    return watch


@pytest.mark.parametrize(
    ("bf16", "expected"), [(0.5, "bf16"), (0.95, "fp32"), (2.0, "fp32"), (4.0, "fp32")]
)
def test_precision_is_bf16_when_clearly_faster(bf16, expected):
    table = Table()
    seconds = {"fp32": 1.0, "bf16": bf16}
    finding = STEPS["precision training"].measure(table, watch_of(lambda run: seconds[run.name]))
    assert finding.chosen == expected and finding.built_in == built_in_precision(CPU).value
    with use_table(table):
        assert resolve_precision(Precision.auto, CPU).value == expected


@compiled
@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize(
    ("lost_from", "most", "gain"), [(4, 0, 2.0), (16, 4, 1.0), (32, 16, 2.0), (99, 32, 2.0)]
)
def test_rows_are_the_most_at_which_the_compiled_step_wins(
    bits, lost_from, most, gain, monkeypatch
):
    both_ways, rows_tried = tune_cpu._both_ways, []

    def noting(model, decoder, rows, columns):
        rows_tried.append(rows)
        return both_ways(model, decoder, rows, columns)

    def cost(run):
        return 1.0 if (run.name == "step") == (rows_tried[-1] < lost_from) else 2.0

    monkeypatch.setattr(tune_cpu, "_both_ways", noting)
    monkeypatch.setattr(tune_cpu, "MOST_ROWS", 12)

    table = Table()
    finding = STEPS[f"decode_step b{bits}"].measure(table, watch_of(cost))
    assert table.configs == {"decode_step": {f"b{bits}": {"most_rows": most}}}
    assert (finding.chosen, finding.built_in) == (str(most), "12")
    assert finding.gain == gain


def test_nothing_is_chosen_when_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr("glm_core.bench.tune_cpu.fast_decoder", lambda model: None)
    table = Table()
    assert STEPS["decode_step b32"].measure(table, watch_of(lambda run: 1.0)) is None
    assert table == Table()
