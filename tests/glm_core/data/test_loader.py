import itertools

import pytest
import torch

from glm_core.data.batch import IGNORE
from glm_core.data.loader import Loader, build_loader
from glm_core.tokenizer import ByteBPETokenizer


@pytest.fixture
def make(make_config, prepared):
    def build(batch_size=4, start=0, rank=0, world_size=1, **changes):
        return build_loader(
            make_config(**changes),
            prepared.tokenizer,
            batch_size,
            start,
            prepared=prepared,
            rank=rank,
            world_size=world_size,
        )

    return build


def take(loader, count):
    return list(itertools.islice(loader, count))


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.position_ids, other.position_ids)
        assert one.mask == other.mask
        assert one.lengths == other.lengths


def test_batches_have_the_shape_when_iterated(make):
    (batch,) = take(make(), 1)
    assert batch.input_ids.shape == batch.labels.shape == (4, 64)
    assert batch.position_ids.shape == (4, 2, 64)
    assert batch.mask.rows == 4
    assert 0 < int((batch.labels != IGNORE).sum()) < batch.num_tokens <= 4 * 64


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_equal_when_workers_differ(make, workers):
    assert_equal(take(make(workers=workers), 6), take(make(), 6))


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (0, 2)])
def test_batches_go_on_when_a_run_is_killed_and_restarted(make, before, after):
    whole = take(make(), 8)
    killed = make(workers=before)
    first = take(killed, 3)
    resumed = make(start=killed.state, workers=after)
    assert_equal(first + take(resumed, 5), whole)


def test_state_counts_what_was_handed_out_when_workers_read_ahead(make):
    loader = make(start=8, workers=2)
    iterator = iter(loader)
    assert loader.state == 8
    next(iterator)
    assert loader.state == 12
    next(iterator)
    assert loader.state == 16


def test_batches_go_on_when_the_batch_size_changes(make):
    small = take(make(batch_size=2), 6)
    large = take(make(batch_size=4), 3)
    rows = torch.cat([batch.input_ids for batch in small])
    assert torch.equal(rows, torch.cat([batch.input_ids for batch in large]))


def test_loader_goes_on_when_iterated_again(make):
    loader = make()
    assert_equal(take(loader, 2) + take(loader, 2), take(make(), 4))


def test_state_can_be_set_when_a_checkpoint_is_loaded(make):
    loader = make()
    loader.state = 12
    assert_equal(take(loader, 1), take(make(), 4)[3:])


def test_ranks_share_the_samples_when_there_are_several(make):
    whole = take(make(batch_size=2), 4)
    ranks = [take(make(batch_size=2, rank=rank, world_size=2), 2) for rank in range(2)]
    assert_equal([ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]], whole)
    loader = make(batch_size=2, rank=1, world_size=2)
    take(loader, 1)
    assert loader.state == 4


def test_epochs_follow_each_other_when_the_text_is_over(make):
    loader = make()
    per_epoch = loader.dataset.samples_per_epoch
    late = make(start=per_epoch - 2)
    (batch,) = take(late, 1)
    assert batch.input_ids.shape == (4, 64)


def test_loader_ends_when_it_has_a_stop(make):
    source = make()
    loader = Loader(source.dataset, 4, 0, seq_length=64, pad_id=0, stop=11)
    assert len(list(loader)) == 2


def test_rows_are_packed_when_asked(make):
    (batch,) = take(make(pack=4), 1)
    assert all(len(row) == 4 for row in batch.mask.segments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"start": -1}, "loader start=-1 must not be negative"),
        ({"rank": 2, "world_size": 2}, "rank=2 must be between 0 and world_size-1=1"),
    ],
)
def test_error_names_the_value_when_it_makes_no_sense(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_negative_state_is_refused_when_set(make):
    with pytest.raises(ValueError, match="loader state=-4 must not be negative"):
        make().state = -4


def test_error_names_the_remedy_when_the_tokenizer_is_another(make_config, prepared):
    other = ByteBPETokenizer.train(["x y z"], 270)
    with pytest.raises(ValueError, match=r"prepared with another tokenizer.*set data\.tokenizer"):
        build_loader(make_config(), other, 4, prepared=prepared)
