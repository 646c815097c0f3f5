"""A pass over many rows is what each row gives by itself, whether beginnings are shared or not."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from sweep.data.encode import Encoded, shared_beginning
from sweep.engines.layout import Stretch, lay_out, length
from sweep.engines.lora import Adapter
from sweep.engines.model import RandomLlama
from sweep.engines.shared_base import Part, SharedBase, cut
from tests.recipes import DEFAULTS

CPU = torch.device("cpu")


def row(tokens: int, *, start: int = 12, shared: int = 10, seed: int = 0) -> Encoded:
    """Random tokens after a beginning that is the same for every row."""
    drawn = np.random.default_rng([seed, tokens]).integers(3, 250, tokens)
    drawn[:shared] = np.arange(20, 20 + shared)
    return Encoded(
        row=f"{seed}/{tokens}",
        input_ids=array("i", drawn.tolist()),
        response_start=start,
        response_bytes=1,
        truncated=False,
    )


ROWS = [row(tokens) for tokens in (14, 33, 20, 32, 13, 60)]


@pytest.fixture
def base() -> Iterator[SharedBase]:
    model = RandomLlama(hidden_size=32, layers=2, heads=2, seed=0, dtype="float32").load().model
    shared = SharedBase(model.double())
    yield shared
    shared.close()


def adapter(base: SharedBase, rank: int) -> Adapter:
    made = base.new_adapter(replace(DEFAULTS, lora_rank=rank))
    generator = torch.Generator().manual_seed(rank)
    for parameter in (made.A, made.B):
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def test_the_line_holds_every_token_once_and_each_label_after_its_token() -> None:
    layout = lay_out([Stretch(ROWS[:2]), Stretch(ROWS[2:4])], CPU)
    line = layout.input_ids[0].tolist()
    assert line == [token for one in ROWS[:4] for token in one.input_ids[:-1]]
    assert layout.positions[0].tolist() == [i for one in ROWS[:4] for i in range(length(one))]
    assert layout.targets.tolist() == [token for one in ROWS[:4] for token in one.input_ids[12:]]
    starts = np.cumsum([0, *(length(one) for one in ROWS)])
    expected = [starts[i] + p for i in range(4) for p in range(11, length(ROWS[i]))]
    assert layout.predicts.tolist() == expected
    assert layout.owners.tolist() == [i for i in range(4) for _ in ROWS[i].input_ids[12:]]


def test_a_shared_beginning_stands_on_the_line_once() -> None:
    shared = shared_beginning(ROWS)
    assert shared == 10
    layout = lay_out([Stretch(ROWS[:3], shared), Stretch(ROWS[3:], shared)], CPU)
    expected: list[int] = []
    for stretch in (ROWS[:3], ROWS[3:]):
        expected += list(range(20, 30))
        expected += [token for one in stretch for token in one.input_ids[shared:-1]]
    assert layout.input_ids[0].tolist() == expected
    assert Stretch(ROWS[:3], shared).tokens + Stretch(ROWS[3:], shared).tokens == len(expected)
    covered = torch.cat([group.line for group in layout.groups])
    assert sorted(covered.tolist()) == list(range(len(expected)))


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        (ROWS, 10),
        ([row(20, shared=7), row(30, shared=7, seed=1)], 0),
        ([row(40, start=9, shared=30), row(41, start=30, shared=30)], 8),
        ([row(40, start=31, shared=30), row(41, start=31, shared=30)], 30),
    ],
)
def test_only_prompts_are_shared_and_only_what_is_worth_it(rows: list[Encoded], shared: int) -> None:
    assert shared_beginning(rows) == shared


@pytest.mark.parametrize("shared", [0, 10])
def test_losses_and_gradients_are_those_of_each_row_alone(base: SharedBase, shared: int) -> None:
    together, alone = ([adapter(base, rank) for rank in (3, 5)] for _ in range(2))
    parts = [Part(together[0], ROWS[:3], shared), Part(together[1], ROWS[3:], shared)]
    found = base.learn(parts, [0.5, 2.0])
    for part, (one, weight) in zip(parts, zip(alone, (0.5, 2.0), strict=True), strict=True):
        nats = [base.learn([Part(one, [single])], [weight]).nats[0][0] for single in part.rows]
        assert found.nats[parts.index(part)] == pytest.approx(nats, rel=1e-12)
    for mine, reference in zip(together, alone, strict=True):
        # The model's norms compute in fp32, whatever its weights are.
        torch.testing.assert_close(mine.A.grad, reference.A.grad, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(mine.B.grad, reference.B.grad, rtol=1e-4, atol=1e-7)
    assert base.score(parts).nats[1] == pytest.approx(found.nats[1], rel=1e-12)


def test_gradients_are_those_of_the_loss_by_differences(base: SharedBase) -> None:
    one = adapter(base, 3)
    parts = [Part(one, ROWS[:3], 10)]
    base.learn(parts, [1.0])
    for parameter in (one.A, one.B):
        index = int(parameter.grad.abs().argmax())  # type: ignore[union-attr]
        values = []
        for step in (1e-3, -1e-3):
            parameter.data[index] += step
            values.append(sum(base.score(parts).nats[0]))
            parameter.data[index] -= step
        slope = (values[0] - values[1]) / 2e-3
        assert float(parameter.grad[index]) == pytest.approx(slope, rel=1e-3)  # type: ignore[index]


def test_padding_is_counted_and_small(base: SharedBase) -> None:
    even = base.score([Part(None, [row(30, seed=i) for i in range(4)])])
    mixed = base.score([Part(None, ROWS)])
    assert even.padding == 0.0
    assert 0.0 < mixed.padding < 0.3


def test_passes_hold_every_row_once_within_bounds() -> None:
    parts = [Part(None, ROWS[:4], shared=3), Part(None, ROWS[2:])]
    seen: list[tuple[int, int]] = []
    for members in cut(parts, 60):
        taken = [parts[p]._replace(rows=[parts[p].rows[r] for r in rows]) for p, rows in members]
        assert sum(part.tokens for part in taken) <= 60
        seen += [(p, r) for p, rows in members for r in rows]
    assert sorted(seen) == [(p, r) for p in range(2) for r in range(4)]
    assert [list(cut([Part(None, ROWS[5:])], 10))] == [[[(0, [0])]]]
