"""Orders are fixed by a seed, can be entered anywhere, and give everybody a turn."""

from __future__ import annotations

import numpy as np
import pytest

from lookhear.training.glee.mixture.row_order import BLOCK, RowOrder, RowStream, Schedule


def test_shares_are_kept_and_turns_count():
    ratios = [1.5, 2.5, 0.05, 0.3]
    schedule, turns = Schedule(ratios, seed=3), [0] * 4
    length = 3 * schedule._block
    for index in range(length):
        source, turn = schedule[index]
        assert turn == turns[source]
        turns[source] += 1
    assert np.abs(np.array(turns) - length * np.array(ratios) / sum(ratios)).max() <= 1
    again = Schedule(ratios, seed=3)
    assert [again[index] for index in (BLOCK + 5, 7, 2 * BLOCK)] == [
        schedule[index] for index in (BLOCK + 5, 7, 2 * BLOCK)
    ]
    assert [again[index][0] for index in range(50)] != [Schedule(ratios, seed=4)[index][0] for index in range(50)]


def test_batches_of_a_step_can_be_of_one_source():
    schedule = Schedule([1, 2], seed=0, together=4)
    groups = [[schedule[index] for index in range(start, start + 4)] for start in range(0, 80, 4)]
    assert all(len({source for source, _ in group}) == 1 for group in groups)
    for source in (0, 1):
        turns = [turn for group in groups for number, turn in group if number == source]
        assert turns == list(range(len(turns)))


@pytest.mark.parametrize("ratios", [[], [1, 0], [1, -2]])
def test_ratios_are_checked(ratios):
    with pytest.raises(ValueError, match="ratios must be positive"):
        Schedule(ratios, seed=0)


def test_every_row_comes_once_a_round():
    order = RowOrder(11, 3, seed=1)
    assert order.batches == 3
    rounds = [np.concatenate([order.batch(turn) for turn in range(start, start + 3)]) for start in (0, 3, 6)]
    for rows in rounds:
        assert len(set(rows)) == 9
    assert len({tuple(rows) for rows in rounds}) == 3
    assert np.array_equal(RowOrder(11, 3, seed=1).batch(7), order.batch(7))  # entered in the middle
    dropped = [set(range(11)) - set(np.concatenate([order.batch(3 * i + j) for j in range(3)])) for i in range(40)]
    assert set().union(*dropped) == set(range(11))


def test_a_data_set_smaller_than_a_batch_is_repeated():
    assert sorted(RowOrder(2, 5, seed=0).batch(3)) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="0 rows"):
        RowOrder(0, 2, seed=0)


def test_factors_are_kept_in_the_mean():
    factors = np.array([1.0, 2.5, 1.0, 1.25, 4.0])
    order = RowOrder(5, 1, seed=2, factors=factors)
    counts = np.zeros(5)
    for epoch in range(400):
        of_round = np.bincount([order.batch(epoch * 9 + place)[0] for place in range(9)], minlength=5)
        assert (np.abs(of_round - factors) < 2).all()
        counts += of_round
    assert counts / 400 == pytest.approx(factors * 9 / factors.sum(), abs=0.12)


def test_wide_and_tall_pictures_come_apart():
    wide = np.arange(40) % 3 == 0
    order = RowOrder(40, 4, seed=5, wide=wide)
    for start in range(0, 100, 10):
        batches = [order.batch(start + place) for place in range(10)]
        assert sorted(np.concatenate(batches)) == list(range(40))
        assert sum(len(set(wide[batch])) > 1 for batch in batches) <= 1
    assert len({bool(wide[order.batch(10 * epoch)][0]) for epoch in range(20)}) == 2  # not always the wide ones first


def make_stream(buffer: int = 8, seed: int = 0) -> RowStream:
    return RowStream("abc", lambda shard: ({"id": f"{shard}{index}"} for index in range(20)), seed, buffer)


def test_a_stream_can_be_entered_anywhere():
    stream = make_stream()
    ids = [row["id"] for turn in range(30) for row in stream.batch(turn, 4)]
    assert len(set(ids[:60])) == 60 and sorted(ids[:60]) == sorted(ids[60:120]) and ids[:60] != ids[60:120]
    other = make_stream()
    for turn in (5, 6, 22, 3, 29):  # forwards, and back
        assert [row["id"] for row in other.batch(turn, 4)] == ids[4 * turn : 4 * turn + 4]
    assert ids[:20] != sorted(ids[:20])
    assert [row["id"] for row in make_stream(seed=1).batch(0, 20)] != ids[:20]
    plain = [row["id"] for row in make_stream(buffer=1).batch(0, 60)]
    assert [int(name[1:]) for name in plain] == [*range(20)] * 3


def test_a_stream_without_rows_says_so():
    with pytest.raises(ValueError, match="shards is empty"):
        RowStream([], iter)
    with pytest.raises(ValueError, match="none of 2 shards holds a row"):
        RowStream("ab", lambda shard: iter(())).batch(0, 1)


def test_a_worker_reads_on_its_own(tmp_path):
    """Also one that is forked after the stream was begun."""
    import multiprocessing

    path = tmp_path / "rows.txt"
    path.write_text("".join(f"{index:06d}\n" for index in range(3000)))

    def read(shard):
        with path.open("rb", buffering=0) as file:
            while line := file.read(7):
                yield {"id": line.decode()}

    stream = RowStream([0], read, buffer=1)
    begun = [row["id"] for row in stream.batch(0, 100)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=lambda: queue.put([row["id"] for row in stream.batch(1, 100)]))
    worker.start()
    found = queue.get(timeout=60)
    worker.join()
    assert begun[-1] == "000099\n" and found[0] == "000100\n"
    assert stream.batch(1, 100)[0]["id"] == "000100\n"
