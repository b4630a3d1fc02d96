"""pass@k against a count of all ways to draw."""

import itertools

import pytest

from codegeex.evaluate.score import count_verdicts, mean_pass_at_k, pass_at_k
from codegeex.evaluate.verdict import Verdict

P, W, S = Verdict.passed, Verdict.wrong_answer, Verdict.skipped


@pytest.mark.parametrize("num", range(1, 8))
def test_estimate_equals_the_share_of_draws_when_all_draws_are_counted(num):
    for passed in range(num + 1):
        outcomes = [True] * passed + [False] * (num - passed)
        for k in range(1, num + 1):
            draws = list(itertools.combinations(outcomes, k))
            share = sum(map(any, draws)) / len(draws)
            assert pass_at_k(num, passed, k) == pytest.approx(share, abs=1e-12)  # worst: 2e-16


def test_estimate_is_one_when_every_draw_must_hold_a_right_answer():
    assert pass_at_k(200, 101, 100) == 1.0
    assert pass_at_k(200, 0, 100) == 0.0
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5)


@pytest.mark.parametrize(("num", "k"), [(5, 6), (5, 0), (0, 1)])
def test_estimate_is_refused_when_there_are_too_few_samples(num, k):
    with pytest.raises(ValueError, match=f"pass@{k} of {num} samples: k must lie between 1"):
        pass_at_k(num, 0, k)


def test_k_is_left_out_when_one_problem_has_too_few_samples():
    verdicts = {"a": [P, W, W], "b": [P, P]}
    scores = mean_pass_at_k(verdicts, (1, 2, 3), num_problems=2)
    assert scores == {1: pytest.approx((1 / 3 + 1) / 2), 2: pytest.approx((2 / 3 + 1) / 2)}


def test_there_is_no_score_when_a_problem_has_no_samples():
    assert mean_pass_at_k({"a": [P]}, (1,), num_problems=2) == {}
    assert mean_pass_at_k({}, (1,), num_problems=0) == {}


def test_skipped_counts_for_nothing_when_others_were_run():
    assert mean_pass_at_k({"a": [P, S], "b": [S, S]}, (1, 2), num_problems=2) == {1: 1.0}
    assert mean_pass_at_k({"a": [S]}, (1,), num_problems=1) == {}


def test_verdicts_are_counted_in_their_order_when_some_are_missing():
    assert count_verdicts({"a": [S, W], "b": [P, W]}) == {
        "passed": 1,
        "wrong answer": 2,
        "skipped": 1,
    }
