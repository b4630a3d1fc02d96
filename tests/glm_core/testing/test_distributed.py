"""Several gloo processes behind one call."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from glm_core.testing import run_distributed

pytestmark = pytest.mark.distributed


def sum_of_ranks(rank, factor):
    value = torch.tensor([float(rank * factor)])
    dist.all_reduce(value)
    return rank, dist.get_world_size(), value.item()


def fail_on_rank_one(rank):
    if rank == 1:
        raise ValueError("wrong weather")
    dist.barrier()


def die_on_rank_zero(rank):
    if rank == 0:
        os._exit(3)
    dist.barrier()


def sleep_on_rank_one(rank):
    if rank == 1:
        time.sleep(30)


def test_ranks_talk_to_each_other_and_answer_in_order():
    assert run_distributed(sum_of_ranks, 2, 10) == [(0, 2, 10.0), (1, 2, 10.0)]


def test_failure_carries_the_traceback_of_its_rank():
    with pytest.raises(RuntimeError, match=r"(?s)rank 1 failed:.*ValueError: wrong weather"):
        run_distributed(fail_on_rank_one, 2)


def test_death_of_a_rank_is_reported():
    with pytest.raises(RuntimeError, match="rank 0 died without an answer"):
        run_distributed(die_on_rank_zero, 2)


def test_silence_is_a_timeout():
    with pytest.raises(TimeoutError, match=r"ranks \[.*1\] did not answer within 0.3 s"):
        run_distributed(sleep_on_rank_one, 2, timeout_s=0.3)
