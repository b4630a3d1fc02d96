import numpy as np

from glm_core.data.random_stream import Purpose, random_stream


def draw(seed, epoch, index, purpose=Purpose.sample):
    return random_stream(seed, epoch, index, purpose).integers(0, 1 << 62, 200).tolist()


def test_numbers_are_equal_when_the_address_is():
    assert draw(1, 2, 3) == draw(1, 2, 3)


def test_numbers_are_all_different_when_addresses_differ():
    addresses = [
        (s, e, i, p) for s in (0, 1) for e in (0, 1) for i in (0, 1, 2**40) for p in (0, 1)
    ]
    numbers = [number for address in addresses for number in draw(*address)]
    assert len(set(numbers)) == len(numbers)


def test_seed_may_use_all_bits_when_it_is_large():
    assert draw(2**64 - 1, 0, 0) != draw(0, 0, 0)


def test_first_numbers_look_uniform_when_index_counts_up():
    first = np.array([random_stream(0, 0, i, Purpose.sample).random() for i in range(2000)])
    # measured: mean 0.498, correlation of neighbours 0.01
    assert abs(first.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.08
