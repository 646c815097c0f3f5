"""The reference engine: exact batches, exact resuming, and no trial that harms the next."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from sweep.data.encode import encode
from sweep.engines import checkpoint
from sweep.engines.evaluate import collate, row_losses
from sweep.engines.inputs import Inputs
from sweep.engines.model import describe, load_with_adapter
from sweep.engines.segment import Segment
from sweep.engines.solo import Solo
from sweep.engines.stream import Stream
from sweep.search.loop import Jobs
from sweep.types import Engine, Job, Progress, Recipe, Report
from tests.contracts.answers import Adapted
from tests.contracts.engine import RECIPE, EngineContract, job, reports

from .conftest import TINY


@pytest.fixture
def solo(inputs: Inputs) -> Iterator[Solo]:
    engine = Solo(inputs=inputs, micro_batch=8)
    yield engine
    engine.close()


class TestSolo(EngineContract, Adapted):
    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Solo(inputs=inputs, micro_batch=8)


def changed(**fields: Any) -> Recipe:
    return replace(RECIPE, **fields)


def weights(report: Report) -> dict[str, torch.Tensor]:
    assert report.checkpoint is not None
    return load_file(Path(report.checkpoint) / "adapter_model.safetensors")


def test_a_trained_rung_reports_progress_of_every_step_and_a_lower_loss(solo: Solo) -> None:
    events = list(solo.run(Jobs([job(0, 0), job()])))
    untrained, *steps, trained = events
    assert [step.examples_seen for step in steps] == [8, 16, 24, 32, 40, 48]
    assert all(isinstance(step, Progress) and math.isfinite(step.train_loss) for step in steps)
    assert isinstance(untrained, Report)
    assert isinstance(trained, Report)
    assert (untrained.state, trained.state, trained.examples_seen) == ("reached", "reached", 48)
    assert trained.validation_loss < untrained.validation_loss  # type: ignore[operator]
    assert trained.tokens == sum(step.tokens for step in steps)  # type: ignore[union-attr]


def test_the_first_step_is_a_plain_loop_of_adamw(inputs: Inputs, solo: Solo) -> None:
    """Against the definition: mean loss per response token of the stream's first eight rows."""
    first = next(event for event in solo.run(Jobs([job()])) if isinstance(event, Progress))
    base = TINY.load()
    rows = encode(inputs.data.examples["train"], base.tokenizer, max_tokens=inputs.max_tokens)
    stream = Stream(len(rows), seed=7)
    batch = [rows[stream[i]] for i in range(8)]
    losses = row_losses(base.model, batch, pad_token=base.tokenizer.pad_token_id)  # type: ignore[arg-type]
    expected = sum(loss.nats for loss in losses) / sum(loss.tokens for loss in losses)
    # A new adapter's B is zero, so dropout can't be seen in the first loss.
    assert first.train_loss == pytest.approx(expected, rel=1e-4)
    assert first.tokens == sum(len(row.input_ids) for row in batch)


def test_padding_does_not_change_a_rows_loss(inputs: Inputs) -> None:
    base = TINY.load()
    rows = encode(inputs.data.examples["train"], base.tokenizer, max_tokens=inputs.max_tokens)[:9]
    pad = base.tokenizer.pad_token_id
    together = row_losses(base.model, rows, pad_token=pad)  # type: ignore[arg-type]
    for row, loss in zip(rows, together, strict=True):
        batch = collate([row], pad)  # type: ignore[arg-type]
        alone = base.model(input_ids=batch.input_ids, labels=batch.labels).loss.item()
        assert loss.row == row.row
        assert loss.nats / loss.tokens == pytest.approx(alone, rel=1e-4)


def test_accumulated_micro_batches_are_the_recipes_batch(inputs: Inputs) -> None:
    still = changed(lora_dropout=0.0)
    (whole,) = reports(Solo(inputs=inputs, micro_batch=8), job(0, 24, recipe=still, trial="whole"))
    (parts,) = reports(Solo(inputs=inputs, micro_batch=2), job(0, 24, recipe=still, trial="parts"))
    assert parts.validation_loss == pytest.approx(whole.validation_loss, rel=1e-4)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-2, atol=1e-4)


def test_a_poisoned_checkpoint_diverges(inputs: Inputs, solo: Solo) -> None:
    (first,) = reports(solo, job(0, 24))
    folder = Path(first.checkpoint or "")
    poisoned = {name: tensor * math.nan for name, tensor in weights(first).items()}
    with checkpoint.writing(folder.with_name("25")) as aside:
        for path in folder.iterdir():
            (aside / path.name).write_bytes(path.read_bytes())
        save_file(poisoned, aside / "adapter_model.safetensors")
    (report,) = reports(solo, job(24, 48, checkpoint=str(folder.with_name("25"))))
    assert report.state == "diverged"


class Cramped(Solo):
    """Runs out of memory with more than `fits` rows at once."""

    fits = 2

    def _segment(self, job: Job, source: Any, work: Any, micro_batch: int) -> Segment:
        if micro_batch > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super()._segment(job, source, work, micro_batch)


def test_out_of_memory_shrinks_the_micro_batch_and_never_the_batch(inputs: Inputs, solo: Solo) -> None:
    still = changed(lora_dropout=0.0)
    (roomy,) = reports(solo, job(0, 24, recipe=still, trial="roomy"))
    (cramped,) = reports(Cramped(inputs=inputs, micro_batch=8), job(0, 24, recipe=still, trial="cramped"))
    assert cramped.state == "reached"
    assert cramped.examples_seen == 24
    assert cramped.validation_loss == pytest.approx(roomy.validation_loss, rel=1e-4)


def test_what_cannot_fit_at_all_is_infeasible(inputs: Inputs) -> None:
    class Full(Cramped):
        fits = 0

    (report,) = reports(Full(inputs=inputs, micro_batch=8), job())
    assert report.state == "infeasible"
    assert "2.00 GiB" in str(report.error)


def test_the_adapter_on_disk_is_what_was_scored(inputs: Inputs, solo: Solo) -> None:
    (report,) = reports(solo, job())
    base = TINY.load()
    model = load_with_adapter(describe(TINY), Path(report.checkpoint or "")).model
    rows = encode(inputs.data.examples["validation"], base.tokenizer, max_tokens=inputs.max_tokens)[:16]
    losses = row_losses(model, rows, pad_token=base.tokenizer.pad_token_id)  # type: ignore[arg-type]
    assert [loss.nats for loss in losses] == pytest.approx([loss.nats for loss in report.rows], rel=1e-5)


def test_no_pickle_is_kept_beside_the_weights(solo: Solo) -> None:
    (report,) = reports(solo, job(0, 24))
    names = {path.name for path in Path(report.checkpoint or "").iterdir()}
    assert "training_args.bin" not in names
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.pt"} <= names


def test_memory_returns_to_its_level_after_every_trial(inputs: Inputs, solo: Solo) -> None:
    def level() -> tuple[int, int]:
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
        return len(tensors), sum(tensor.numel() for tensor in tensors)

    reports(solo, job(0, 8, trial="warm"), job(0, 8, trial="warm2"))
    before, resident = level(), psutil.Process().memory_info().rss
    ranks = [4 + 4 * (number % 4) for number in range(10)]
    reports(solo, *(job(0, 8, trial=str(i), recipe=changed(lora_rank=r)) for i, r in enumerate(ranks)))
    assert level() == before
    assert psutil.Process().memory_info().rss - resident < 64 * 2**20


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_every_schedule_warms_up_to_the_peak_and_ends_as_it_should(solo: Solo, schedule: str) -> None:
    whole = job(0, 72, recipe=changed(schedule=schedule, warmup_fraction=0.25), trial=schedule)
    rates = [e.learning_rate for e in solo.run(Jobs([whole])) if isinstance(e, Progress)]
    assert max(rates) == pytest.approx(3e-3)
    assert rates[0] < 3e-3
    assert (rates[-1] < 2e-3) == (schedule != "constant")


def test_cancelling_while_it_is_scored_keeps_the_training(solo: Solo) -> None:
    class CancelAtTheEnd(Jobs):
        trained = False

        def cancelled(self) -> frozenset[str]:
            return frozenset({"cut@24"}) if self.trained else frozenset()

    source = CancelAtTheEnd([job(0, 24, trial="cut")])
    for event in solo.run(source):
        source.trained = isinstance(event, Progress) and event.examples_seen == 24
    assert isinstance(event, Report)
    assert (event.state, event.examples_seen, event.validation_loss) == ("stopped", 24, None)
    (scored,) = reports(solo, job(24, 24, checkpoint=event.checkpoint, trial="cut"))
    (straight,) = reports(solo, job(0, 24, trial="straight"))
    assert scored.validation_loss == straight.validation_loss
