"""A model that two processes hold together, by gloo, trains as one that a process has for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sweep.backends.pool import Pool
from sweep.engines.inputs import EncodedRows, Inputs
from sweep.engines.segment import _Share
from sweep.engines.solo import Solo
from sweep.engines.stream import Stream
from sweep.ranks import Rank
from sweep.search.loop import Jobs
from sweep.types import Job, Progress, Recipe, Report
from tests.backends.test_pool import pool
from tests.contracts.answers import PROBE, asking
from tests.contracts.engine import RECIPE, job, reports

from .conftest import TINY, tiny_inputs
from .grouped import Grouped
from .test_solo import Cramped

STILL = replace(RECIPE, lora_dropout=0.0)
WILD = replace(STILL, learning_rate=1e6, max_gradient_norm=1e9, warmup_fraction=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("group")


@pytest.fixture(scope="module")
def group(folder: Path) -> Iterator[Pool]:
    """One worker of two processes, which holds four rows at once."""
    engine = partial(Grouped, inputs=tiny_inputs(folder), micro_batch=2)
    with closing(pool(engine, folder, workers=1, devices_per_worker=2, silent_seconds=600)) as backend:
        yield backend


@pytest.fixture
def alone(inputs: Inputs) -> Iterator[Solo]:
    engine = Solo(inputs=inputs, micro_batch=4)
    yield engine
    engine.close()


def run(backend: Any, *jobs: Job) -> tuple[list[Progress], list[Report]]:
    events = list(backend.run(Jobs(jobs)))
    steps = [event for event in events if isinstance(event, Progress)]
    return steps, [event for event in events if isinstance(event, Report)]


def adapter(report: Report) -> dict[str, torch.Tensor]:
    return load_file(Path(report.checkpoint or "") / "adapter_model.safetensors")


def assert_the_same(found: Report, expected: Report) -> None:
    assert (found.state, found.error) == ("reached", None)
    assert found.tokens == expected.tokens
    assert [row.row for row in found.rows] == [row.row for row in expected.rows]
    nats = [[row.nats for row in report.rows] for report in (found, expected)]
    assert nats[0] == pytest.approx(nats[1], rel=1e-5)
    assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
    weights, wanted = adapter(found), adapter(expected)
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
class TestGroup:
    @pytest.mark.parametrize(
        "recipe",
        [
            STILL,
            replace(STILL, batch_size=7, lora_plus_ratio=4.0, schedule="constant"),
            replace(STILL, batch_size=1),
            replace(STILL, batch_size=12, target_modules=("q_proj", "down_proj"), max_gradient_norm=0.01),
        ],
        ids=["even", "odd", "single", "clipped"],
    )
    def test_every_step_is_that_of_one_process(self, group: Pool, alone: Solo, recipe: Recipe) -> None:
        stop = 4 * recipe.batch_size
        whole = job(0, stop, trial=f"batch{recipe.batch_size}", recipe=recipe)
        steps, (found,) = run(group, whole)
        expected_steps, (expected,) = run(alone, whole)
        assert len(steps) == 4
        for step, wanted in zip(steps, expected_steps, strict=True):
            assert (step.examples_seen, step.tokens) == (wanted.examples_seen, wanted.tokens)
            assert step.train_loss == pytest.approx(wanted.train_loss, rel=1e-5)
            assert step.gradient_norm == pytest.approx(wanted.gradient_norm, rel=1e-4)
            assert step.learning_rate == wanted.learning_rate
        assert_the_same(found, expected)

    def test_it_answers_as_one_process_does(self, group: Pool, alone: Solo, inputs: Inputs) -> None:
        strong = replace(STILL, learning_rate=0.02, lora_alpha=64.0)
        asked = replace(job(0, 48, trial="a", recipe=strong), asked=asking(inputs), probe=PROBE)
        base = replace(job(0, 0, trial="base"), asked=asking(inputs))
        _, found = run(group, asked, base)
        _, expected = run(alone, asked, base)
        for one, wanted in zip(found, expected, strict=True):
            assert [reply.text for reply in one.replies] == [reply.text for reply in wanted.replies]
            for probe, by_one in zip(one.probed, wanted.probed, strict=True):
                assert probe[:2] == by_one[:2]
                assert probe.nats == pytest.approx(by_one.nats, rel=1e-4)
                assert (probe.verbatim, probe.base_min_k) == (
                    by_one.verbatim,
                    pytest.approx(by_one.base_min_k, rel=1e-4),
                )
        assert found[0].replies[0].text != found[1].replies[0].text

    def test_stopping_and_going_on_changes_nothing_with_dropout_too(self, group: Pool) -> None:
        """Its processes draw apart: one random state would not do for both."""
        _, (straight,) = run(group, job(0, 48, trial="straight"))
        _, (first,) = run(group, job(0, 24, trial="rungs"))
        _, (second,) = run(group, job(24, 48, checkpoint=first.checkpoint, trial="rungs"))
        assert second.rows == straight.rows
        assert {name: weight.tolist() for name, weight in adapter(second).items()} == {
            name: weight.tolist() for name, weight in adapter(straight).items()
        }

    def test_a_trial_moves_between_workers_of_any_size(self, group: Pool, alone: Solo) -> None:
        backends = [group, alone, group]
        rungs = [0, 16, 32, 48]
        _, (straight,) = run(alone, job(0, 48, trial="straight", recipe=STILL))
        state, report = None, straight
        for backend, (start, stop) in zip(backends, pairwise(rungs), strict=True):
            _, (report,) = run(backend, job(start, stop, checkpoint=state, trial="moves", recipe=STILL))
            state = report.checkpoint
        assert [row.nats for row in report.rows] == pytest.approx(
            [row.nats for row in straight.rows], rel=1e-4
        )
        assert Path(state or "").parent.parent.parent.name.startswith("group")

    def test_each_process_holds_half_of_the_layers(self, group: Pool, folder: Path) -> None:
        run(group, job(0, 0, trial="base"))
        *_, first, second = sorted(line.split() for line in (folder / "held").read_text().splitlines()[-2:])
        assert [first[0], second[0]] == ["0", "1"]
        whole = int(first[3])
        layers = sum(weight.numel() for weight in TINY.load().model.model.layers.parameters())
        assert whole == layers
        assert int(first[2]) == int(second[2]) == whole / 2

    def test_divergence_ends_the_trial_and_not_the_group(self, group: Pool, folder: Path) -> None:
        _, (before, diverged, after) = run(
            group,
            job(0, 8, trial="before", recipe=STILL),
            job(0, 24, trial="wild", recipe=WILD),
            job(0, 8, trial="after", recipe=STILL),
        )
        assert (diverged.state, diverged.checkpoint) == ("diverged", None)
        assert after.rows == before.rows
        processes = [line.split()[1] for line in (folder / "held").read_text().splitlines()]
        assert len({*processes[-6:]}) == 2

    def test_cancelled_it_keeps_a_checkpoint_to_go_on_from(self, group: Pool) -> None:
        source = Jobs([job(0, 800, trial="cut", horizon=800)])
        for event in group.run(source):
            if isinstance(event, Progress):
                source.interrupt()
        assert isinstance(event, Report)
        assert (event.state, event.error) == ("stopped", "cancelled")
        seen = event.examples_seen
        assert 0 < seen < 800
        _, (rest,) = run(group, job(seen, seen + 8, checkpoint=event.checkpoint, trial="cut", horizon=800))
        _, (straight,) = run(group, job(0, seen + 8, trial="uncut", horizon=800))
        assert rest.rows == straight.rows

    def test_a_killed_process_costs_no_trial(
        self, group: Pool, alone: Solo, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        killed = job(0, 48, trial="killed", recipe=STILL)
        steps, (report,) = run(group, killed)
        assert (folder / "killed").exists()
        assert_the_same(report, run(alone, killed)[1][0])
        assert [step.examples_seen for step in steps][-6:] == [8, 16, 24, 32, 40, 48]
        assert "worker 0 was killed (SIGKILL)" in caplog.text
        assert "It held trial killed." in caplog.text


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("batch", [1, 7, 8])
def test_the_shares_of_a_batch_are_the_batch(
    count: int, batch: int, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = EncodedRows(inputs, TINY.load().tokenizer).view(job().train)
    stream = Stream(len(rows), seed=7)
    taken: list[list[str]] = [[] for _ in range(3)]
    for number in range(count):
        for name, value in Rank(number=number, count=count).environment.items():
            monkeypatch.setenv(name, value)
        share = _Share(rows, stream, batch, steps=3)
        assert len(share) == 3 * share.rows_per_step
        for position in range(len(share)):
            row = share[position]
            if row.response_tokens:
                taken[position // share.rows_per_step].append(row.row)
            else:
                assert len(row.input_ids) == 1
    for step, names in enumerate(taken):
        expected = [rows[stream[step * batch + place]].row for place in range(batch)]
        assert sorted(names) == sorted(expected)


def test_what_does_not_fit_in_a_group_is_infeasible_at_once(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Cramped(inputs=inputs, micro_batch=8)
    base = TINY.load()
    engine.adopt(base, EncodedRows(inputs, base.tokenizer))
    monkeypatch.setenv("SWEEP_RANKS", "2")
    (report,) = reports(engine, job())
    assert report.state == "infeasible"
    assert str(report.error).startswith(
        "8 rows of up to 96 tokens do not fit on one of the worker's 2 devices: "
    )
    assert "2.00 GiB" in str(report.error)
    assert str(report.error).endswith(" Lower engine.micro_batch.")
