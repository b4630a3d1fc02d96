"""What `glm bench kernels --tune` measures ends in a table that the choices then follow."""

import json
import logging

import pytest
import torch

from glm_core.attention import Causal, Full, MaskRequest, PrefixLM, prepare_attention
from glm_core.bench import race as racing
from glm_core.bench import tune_triton
from glm_core.bench.race import HOPELESS, Runner, order, race
from glm_core.bench.tune import Sizes, tune
from glm_core.bench.tune_attention import AttentionSizes, Case
from glm_kernels import measured
from glm_kernels.triton import tuning

CPU = torch.device("cpu")
WORKS = racing._works
TINY = Sizes(AttentionSizes(batch=2, num_heads=2, head_dim=8, lengths=(128, 512)), None, None)


def watch_of(seconds):
    """A watch that runs nothing: each way takes what the dict says, 1 where it says nothing."""

    def watch(calls):
        assert all(isinstance(call, Runner) for call in calls)
        return sum(seconds.get(call.name, 1.0) for call in calls)

    return watch


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv(measured.TABLE_VARIABLE)
    monkeypatch.setenv("GLM_CACHE", str(tmp_path))
    # Traced for each new mask otherwise; and no test is about flex's speed.
    monkeypatch.setattr(racing, "_works", lambda name, call, is_right: name != "flex")
    measured.forget()
    yield
    measured.forget()


def chosen(spec, length=128, dtype=torch.float32, q_len=None):
    q_len = q_len or length
    request = MaskRequest(spec, 2, q_len, length, length - q_len, CPU, dtype)
    return prepare_attention(request).backend.name


def test_next_run_takes_what_was_faster():
    assert chosen(Causal()) == "sdpa"
    path = tune(CPU, sizes=TINY, watch=watch_of({"eager": 0.5}))
    assert path == measured.default_path(CPU)
    assert chosen(Causal()) == "eager"
    with torch.no_grad():
        assert chosen(PrefixLM((3, 4)), 100, torch.bfloat16) == "eager"
        assert chosen(Full(), 300, q_len=1) == "eager"
        # Longer than all that was measured.
        assert chosen(Full(), 9000, q_len=1) == "eager"
    assert chosen(Full(), dtype=torch.float64) == "sdpa"


def test_eager_is_no_choice_where_it_takes_much_memory():
    tune(CPU, sizes=TINY, watch=watch_of({"eager": 0.01}))
    assert chosen(Causal(), 255) == "eager"
    assert chosen(Causal(), 256) == "sdpa"
    with torch.no_grad():
        assert chosen(Causal(), 256) == "sdpa"


def test_built_in_choice_stays_when_nothing_is_clearly_faster():
    tune(CPU, sizes=TINY, watch=watch_of({"eager": 0.98}))
    assert chosen(Causal()) == "sdpa"
    tune(CPU, sizes=TINY, watch=watch_of({"eager": 0.9}))
    assert chosen(Causal()) == "eager"


def test_earlier_table_has_no_say_in_a_new_one():
    tune(CPU, sizes=TINY, watch=watch_of({"eager": 0.5}))
    tune(CPU, sizes=TINY, watch=watch_of({"eager": 2.0}))
    assert chosen(Causal()) == "sdpa"


def test_table_goes_where_it_is_asked_to_go(tmp_path, monkeypatch):
    path = tune(CPU, tmp_path / "new" / "mine.json", sizes=TINY, watch=watch_of({"eager": 0.5}))
    assert path == tmp_path / "new" / "mine.json"
    assert chosen(Causal()) == "sdpa"
    monkeypatch.setenv(measured.TABLE_VARIABLE, str(path))
    measured.forget()
    assert chosen(Causal()) == "eager"
    assert json.loads(path.read_text())["torch"] == torch.__version__


def test_log_tells_what_was_chosen_against_what(caplog):
    with caplog.at_level(logging.INFO, logger="glm_core.bench.tune"):
        tune(CPU, sizes=TINY, watch=watch_of({"eager": 0.25}))
    line = "attention decode packed half 512: eager, 4.00 times as fast as cpu"
    assert line in caplog.text
    assert "attention training full single 512: sdpa, as built in" in caplog.text
    assert "32 of 48 choices differ from the built-in ones" in caplog.text


def test_rest_keeps_its_built_in_choice_when_the_budget_is_used_up(caplog):
    tune(CPU, budget_s=1e-9, sizes=TINY, watch=watch_of({"eager": 0.25}))
    assert "48 of 48 choices keep their built-in value" in caplog.text
    assert chosen(Causal()) == "sdpa"
    with pytest.raises(ValueError, match="the budget is 0 seconds: it must be above 0"):
        tune(CPU, budget_s=0)


def test_real_calls_run_forward_and_backward(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("GLM_KERNELS_TUNING", "off")
    ran = []

    def watch(calls):
        for call in calls[:1]:
            ran.append((call.name, call()))
        return float(len(calls))

    seconds = race({"one": lambda: 1, "fails": lambda: 1 / 0}, watch)
    assert seconds == {"one": 1.0} and ran == [("one", 1)] * 3


def test_way_that_is_far_behind_runs_once_and_is_still_ranked():
    rounds = []
    costs = {"fast": 1.0, "slow": HOPELESS * 1.1, "near": HOPELESS * 0.9}

    def watch(calls):
        rounds.append(calls[0].name)
        return costs[calls[0].name] * len(calls)

    seconds = race({name: int for name in costs}, watch, budget_s=0.0)
    assert list(seconds) == ["fast", "near", "slow"]
    assert [rounds.count(name) for name in costs] == [3, 1, 3]


def test_order_keeps_the_built_in_choice_within_the_margin():
    assert order({"a": 1.0, "b": 1.04}, "b") == ["b", "a"]
    assert order({"a": 1.0, "b": 1.06}, "b") == ["a", "b"]
    assert order({"a": 1.0}, "b") == ["a"]


@pytest.mark.parametrize("kind", ["causal", "full", "prefix", "packed"])
@pytest.mark.parametrize("use", ["training", "prompt", "decode"])
def test_measured_request_is_of_the_class_under_which_it_is_written(use, kind):
    from glm_core.attention import dispatch

    request = Case(use, kind, True).request(CPU, 3, 128)
    with torch.set_grad_enabled(use == "training"):
        assert (dispatch.use_of(request), dispatch.kind_of(request)) == (use, kind)
        built_in = "cpu" if use == "decode" else "sdpa"
        assert prepare_attention(request).backend.name == built_in


@pytest.mark.gpu
def test_table_of_a_gpu_is_measured_and_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(racing, "_works", WORKS)
    monkeypatch.setattr(tune_triton, "OPS", ("weight_only_vector", "attention_forward"))
    sizes = Sizes(
        AttentionSizes(batch=2, num_heads=2, head_dim=64, lengths=(128,)),
        tune_triton.KernelSizes(2, 256, 2, 64, (256, 256)),
        cpu=None,
    )
    cuda = torch.device("cuda")
    path = tune(cuda, sizes=sizes)
    assert path == measured.default_path(cuda)
    configs = measured.table_of(cuda).configs
    assert configs.keys() == {"weight_only_vector", "attention_forward"}
    assert tuning.lookup("attention_forward", "h64", cuda) == configs["attention_forward"]["h64"]
    names = measured.ranking("attention", "training prefix half 8192", cuda)
    request = MaskRequest(PrefixLM((3, 4)), 2, 128, 128, 0, cuda, torch.bfloat16)
    assert prepare_attention(request).backend.name == names[0]
