"""The data order: every epoch a permutation, any position at once."""

from __future__ import annotations

import pytest

from sweep.engines.stream import Stream


def test_every_epoch_sees_each_row_once() -> None:
    stream = Stream(10, seed=3)
    epochs = [[stream[epoch * 10 + i] for i in range(10)] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert epochs[0] != epochs[1]


def test_the_order_depends_on_the_seed_alone() -> None:
    assert [Stream(50, seed=1)[i] for i in range(120)] == [Stream(50, seed=1)[i] for i in range(120)]
    assert [Stream(50, seed=1)[i] for i in range(50)] != [Stream(50, seed=2)[i] for i in range(50)]


def test_positions_can_be_asked_for_in_any_order() -> None:
    forward = Stream(7, seed=0)
    expected = [forward[i] for i in range(30)]
    backward = Stream(7, seed=0)
    assert [backward[i] for i in reversed(range(30))] == expected[::-1]


def test_the_first_rows_are_those_of_the_first_positions_each_once() -> None:
    stream = Stream(10, seed=3)
    assert stream.first(4) == [stream[i] for i in range(4)]
    assert sorted(stream.first(25)) == list(range(10))
    assert stream.first(0) == []


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Stream(0, seed=0)
