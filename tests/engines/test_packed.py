"""The packed engine: what each trial gets is what it would get alone, whoever trains beside it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from sweep.data.encode import encode
from sweep.engines import checkpoint
from sweep.engines.evaluate import row_losses
from sweep.engines.inputs import Inputs
from sweep.engines.lora import Dropout, targeted
from sweep.engines.model import (
    Base,
    RandomLlama,
    describe,
    load_with_adapter,
    peft_on_transformers,
)
from sweep.engines.packed import Packed
from sweep.engines.shared_base import SharedBase
from sweep.engines.solo import Solo
from sweep.search.loop import Jobs
from sweep.types import Capacity, Done, Engine, Job, Progress, Recipe, Report, Wait
from tests.contracts.answers import Adapted
from tests.contracts.engine import RECIPE, EngineContract, job, reports, run

from .conftest import TINY

STILL = replace(RECIPE, lora_dropout=0.0)


class TestOneSlot(EngineContract):
    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Packed(inputs=inputs, slots=1, tokens=512)


class TestSeveralSlots(EngineContract, Adapted):
    beside_others = 1e-5

    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Packed(inputs=inputs, slots=3, tokens=256)


class TestAsManySlotsAsFit(EngineContract):
    beside_others = 1e-5

    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Packed(inputs=inputs, slots=None, tokens=1024)


@dataclass(frozen=True, kw_only=True)
class Double(RandomLlama):
    """The same model in fp64."""

    def load(self) -> Base:
        model, tokenizer = super().load()
        return Base(model.double(), tokenizer)


TARGETS: tuple[Any, ...] = ("all-linear", ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"))


def mixed() -> list[Recipe]:
    """16 recipes of mixed rank, batch, layers, scale and schedule."""
    ranks, batches, rates = (4, 8, 16, 64), (4, 8, 16, 32), (3e-4, 1e-3, 3e-3, 1e-4)
    return [
        replace(
            STILL,
            lora_rank=ranks[i % 4],
            batch_size=batches[(i // 4 + i) % 4],
            learning_rate=rates[i // 4],
            weight_decay=0.1 * (i % 3),
            target_modules=TARGETS[i % 3],
            rslora=i % 4 == 1,
            lora_plus_ratio=4.0 if i % 7 == 0 else 1.0,
            schedule=("linear", "cosine", "constant", "wsd")[i % 4],  # type: ignore[arg-type]
        )
        for i in range(16)
    ]


def jobs_of(recipes: list[Recipe], prefix: str, steps: int) -> list[Job]:
    """Each recipe for so many steps."""
    return [
        job(0, steps * r.batch_size, trial=f"{prefix}{i}", recipe=r, horizon=steps * r.batch_size)
        for i, r in enumerate(recipes)
    ]


@pytest.mark.parametrize(("every", "steps"), [pytest.param(1, 100, marks=pytest.mark.slow), (5, 30)])
def test_mixed_trials_in_fp64_end_as_each_alone_on_the_reference(
    inputs: Inputs, every: int, steps: int
) -> None:
    """All sixteen recipes for 100 steps each in the slow run, every fifth of them for 30 in the quick one."""
    recipes = mixed()[::every]
    double = replace(inputs, model=Double(**vars(TINY)), max_tokens=24)
    alone = reports(Solo(inputs=double, micro_batch=32), *jobs_of(recipes, "alone", steps))
    packed = Packed(inputs=double, slots=16, tokens=4096)
    for reference, found in zip(alone, reports(packed, *jobs_of(recipes, "packed", steps)), strict=True):
        assert found.state == reference.state == "reached"
        assert found.validation_loss == pytest.approx(reference.validation_loss, abs=1e-8)
        assert found.train_loss == pytest.approx(reference.train_loss, abs=1e-6)
        assert found.tokens == reference.tokens


def test_in_fp32_the_first_gradients_agree(inputs: Inputs) -> None:
    inputs = replace(inputs, max_tokens=24)

    def first_steps(engine: Engine, prefix: str) -> dict[str, Progress]:
        events = engine.run(Jobs(jobs_of(mixed()[::2], prefix, 1)))
        return {e.trial.removeprefix(prefix): e for e in events if isinstance(e, Progress)}

    alone = first_steps(Solo(inputs=inputs, micro_batch=32), "alone")
    packed = first_steps(Packed(inputs=inputs, slots=16, tokens=4096), "packed")
    assert alone.keys() == packed.keys()
    for name, reference in alone.items():
        assert packed[name].train_loss == pytest.approx(reference.train_loss, rel=1e-5)
        assert packed[name].gradient_norm == pytest.approx(reference.gradient_norm, rel=1e-5)


def adapter_of(report: Report) -> dict[str, torch.Tensor]:
    return load_file(Path(report.checkpoint or "") / "adapter_model.safetensors")


def test_dropout_drops_the_same_whoever_trains_beside_it(inputs: Inputs) -> None:
    dropping = replace(RECIPE, lora_dropout=0.4)
    others = [job(0, 24, trial=f"o{i}", recipe=replace(RECIPE, lora_rank=4 + i)) for i in range(3)]
    (alone,) = reports(Packed(inputs=inputs, slots=1, tokens=512), job(0, 24, trial="a", recipe=dropping))
    *_, beside = reports(
        Packed(inputs=inputs, slots=4, tokens=96), *others, job(0, 24, trial="b", recipe=dropping)
    )
    (still,) = reports(Packed(inputs=inputs, slots=1, tokens=512), job(0, 24, trial="c", recipe=STILL))
    for name, tensor in adapter_of(alone).items():
        torch.testing.assert_close(adapter_of(beside)[name], tensor, rtol=1e-3, atol=1e-5)
    assert abs((still.train_loss or 0) - (alone.train_loss or 0)) > 1e-6


def test_a_dropped_share_is_what_the_recipe_says() -> None:
    draws = [torch.Generator().manual_seed(i) for i in range(2)]
    mask = Dropout(0.25, [300, 100], draws).mask(64, torch.zeros(()))
    assert mask.shape == (400, 64)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


class Counting(Jobs):
    """Remembers at which report each job was handed out."""

    def __init__(self, jobs: list[Job]) -> None:
        super().__init__(jobs)
        self.reported = 0
        self.handed_out: list[int] = []

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        answer = super().next(capacity)
        if isinstance(answer, Job):
            self.handed_out.append(self.reported)
        return answer


def test_a_slot_is_refilled_before_anyone_takes_another_step(inputs: Inputs) -> None:
    jobs = [job(0, 8 if i % 3 else 48, trial=str(i), recipe=STILL) for i in range(9)]
    source = Counting(jobs)
    working = 0
    for event in Packed(inputs=inputs, slots=3, tokens=4096).run(source):
        if isinstance(event, Progress):
            # Whoever steps does so beside a full house, as long as there are jobs.
            working = len(source.handed_out) - source.reported
            assert working == 3 or len(source.handed_out) == len(jobs)
        else:
            source.reported += 1
    assert source.reported == len(jobs)


def test_what_is_not_finite_stays_with_its_trial(inputs: Inputs) -> None:
    """A neighbour whose numbers overflow in its first forward pass, not only in its step."""
    wild = replace(STILL, learning_rate=1e30, warmup_fraction=0.0, max_gradient_norm=1e30)
    calm = job(0, 48, trial="calm", recipe=STILL)
    (alone,) = reports(Packed(inputs=inputs, slots=1, tokens=4096), calm)
    poisoned, beside = reports(
        Packed(inputs=inputs, slots=2, tokens=4096), job(0, 48, trial="wild", recipe=wild), calm
    )
    assert poisoned.state == "diverged"
    assert beside.validation_loss == pytest.approx(alone.validation_loss, rel=1e-6)


def test_a_poisoned_neighbour_changes_no_bit(inputs: Inputs, tell_fault: Callable[..., None]) -> None:
    """One weight that is no number, and the same neighbour with all of its own: both stay for one step."""
    (begun,) = reports(Packed(inputs=inputs, slots=1, tokens=4096), job(0, 8, trial="beside", recipe=STILL))
    whole = Path(begun.checkpoint or "")
    poisoned = whole.with_name("9")
    with checkpoint.writing(poisoned) as aside:
        for path in whole.iterdir():
            shutil.copy(path, aside)
        weights = adapter_of(begun)
        next(iter(weights.values()))[0, 0] = math.nan
        save_file(weights, aside / "adapter_model.safetensors")

    def found(state: Path) -> tuple[str, list[Progress], float | None, dict[str, torch.Tensor]]:
        """How the neighbour ended; steps, loss and weights of the trial beside it."""
        beside = job(8, 16, trial="beside", recipe=STILL, checkpoint=str(state))
        calm = job(0, 48, trial="calm", recipe=STILL)
        events = run(Packed(inputs=inputs, slots=2, tokens=4096), beside, calm)
        steps = [event for event in events if isinstance(event, Progress) and event.trial == "calm"]
        ended = {event.trial: event for event in events if isinstance(event, Report)}
        return ended["beside"].state, steps, ended["calm"].validation_loss, adapter_of(ended["calm"])

    (state, *calm, weights), (healthy, *expected, same) = found(poisoned), found(whole)
    assert (state, healthy) == ("diverged", "reached")
    unharmed = calm == expected and all(torch.equal(weights[name], tensor) for name, tensor in same.items())
    tell_fault(injected=1, trials=(1, int(not unharmed), 0))
    assert unharmed


def no_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Cramped(Packed):
    """Has room for `fits` tokens in a pass, by the error that torch raises."""

    fits = 200

    def _load(self) -> None:
        super()._load()
        assert self._base is not None
        learn = self._base.learn

        def within_bounds(parts: Any, weights: Any) -> Any:
            tokens = sum(part.tokens for part in parts)
            if tokens > self.fits:
                # Half of the gradients are there already when memory runs out.
                learn(parts[:1], weights[:1])
                raise no_memory()
            return learn(parts, weights)

        self._base.learn = within_bounds  # type: ignore[method-assign]


def test_out_of_memory_shrinks_passes_and_never_a_batch(inputs: Inputs) -> None:
    jobs = [job(0, 24, trial=f"t{i}", recipe=replace(STILL, lora_rank=4 + i)) for i in range(2)]
    roomy = reports(Packed(inputs=inputs, slots=2, tokens=4096), *jobs)
    cramped = reports(Cramped(inputs=inputs, slots=2, tokens=4096), *jobs)
    for expected, found in zip(roomy, cramped, strict=True):
        assert (found.state, found.examples_seen) == ("reached", 24)
        assert found.validation_loss == pytest.approx(expected.validation_loss, rel=1e-5)


class Scoring(Packed):
    """Fails to score what `fails` says, by the error that it gives."""

    def fails(self, parts: Any) -> Exception | None:
        raise NotImplementedError

    def _load(self) -> None:
        super()._load()
        assert self._base is not None
        score = self._base.score

        def tried(parts: Any) -> Any:
            if error := self.fails(parts):
                raise error
            return score(parts)

        self._base.score = tried  # type: ignore[method-assign]


def test_out_of_memory_while_scoring_shrinks_passes_too(inputs: Inputs) -> None:
    class Crowded(Scoring):
        def fails(self, parts: Any) -> Exception | None:
            return no_memory() if sum(part.tokens for part in parts) > 200 else None

    jobs = [job(0, 8, trial=name, recipe=STILL) for name in "ab"]
    roomy = reports(Packed(inputs=inputs, slots=2, tokens=4096), *jobs)
    cramped = reports(Crowded(inputs=inputs, slots=2, tokens=4096), *jobs)
    for expected, found in zip(roomy, cramped, strict=True):
        assert found.validation_loss == pytest.approx(expected.validation_loss, rel=1e-5)
        assert [loss.row for loss in found.rows] == [loss.row for loss in expected.rows]


def test_it_then_takes_off_a_trial_that_is_still_training(inputs: Inputs) -> None:
    class Crowded(Scoring):
        def fails(self, parts: Any) -> Exception | None:
            return no_memory() if len(self._slots) > 1 else None

    first, youngest = reports(
        Crowded(inputs=inputs, slots=2, tokens=256),
        job(0, 8, trial="first", recipe=STILL),
        job(0, 48, trial="youngest", recipe=STILL),
    )
    assert (first.state, youngest.state) == ("reached", "stopped")
    assert youngest.examples_seen < 48


def test_a_row_that_cannot_be_scored_fails_its_trial(inputs: Inputs) -> None:
    class Choking(Scoring):
        def fails(self, parts: Any) -> Exception | None:
            judged = any(row.row == "row-80" for part in parts for row in part.rows)
            return ValueError("no such row") if judged else None

    (report,) = reports(Choking(inputs=inputs, slots=2, tokens=256), job(0, 8, recipe=STILL))
    assert report.state == "failed"
    assert "no such row" in str(report.error)


@pytest.mark.slow
def test_a_real_limit_on_memory_changes_no_result(tmp_path: Path, tell_fault: Callable[..., None]) -> None:
    def told(megabytes: str) -> Any:
        command = [sys.executable, "-m", "tests.engines.limited", str(tmp_path / megabytes), megabytes]
        # Arenas would reserve 64 MiB of addresses per thread.
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
        return json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)

    roomy, cramped = told("none"), told("80")
    assert (roomy["tokens"], roomy["slots"]) == (8192, 2)
    assert cramped["tokens"] < 4096
    same = [
        (found["state"], found["error"]) == ("reached", None)
        and found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        for expected, found in zip(roomy["trials"], cramped["trials"], strict=True)
    ]
    tell_fault(injected=1, trials=(len(same), same.count(False), 0))
    assert all(same), cramped["trials"]


@pytest.mark.parametrize(("trials_that_fit", "at_once"), [(1, 1), (2, 2), (9, 4)])
def test_slots_are_taken_while_memory_lasts(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, trials_that_fit: int, at_once: int
) -> None:
    engine = Packed(inputs=inputs, slots=4, tokens=256)

    def left(device: torch.device) -> int:
        """Room for so many trials and one pass; the pass is what the engine has measured it to take."""
        taken = sum(slot.bytes for slot in engine._slots)
        one = max((slot.bytes for slot in engine._slots), default=0)
        return int(one * (trials_that_fit + 0.5) - taken + engine._bytes_per_token * engine._tokens) or 2**40

    monkeypatch.setattr("sweep.engines.packed.available_bytes", left)
    most = 0
    for _ in engine.run(Jobs([job(0, 16, trial=str(i), recipe=STILL) for i in range(6)])):
        most = max(most, len(engine._slots))
    assert most == at_once


def test_then_it_takes_trials_off_their_slots(inputs: Inputs) -> None:
    class VeryCramped(Cramped):
        fits = 80

    first, youngest = reports(
        VeryCramped(inputs=inputs, slots=2, tokens=4096),
        job(0, 16, trial="first", recipe=STILL),
        job(0, 16, trial="youngest", recipe=STILL),
    )
    assert first.state == "reached"
    assert youngest.state == "stopped"
    assert "out of memory" in str(youngest.error)


def test_what_does_not_fit_alone_is_infeasible_with_the_bytes(inputs: Inputs) -> None:
    class Full(Cramped):
        fits = 0

    (report,) = reports(Full(inputs=inputs, slots=2, tokens=4096), job(0, 16))
    assert report.state == "infeasible"
    assert "bytes beside the model" in str(report.error)
    assert "are available" in str(report.error)


def test_the_adapter_on_disk_gives_peft_the_same_losses(inputs: Inputs) -> None:
    recipe = replace(STILL, lora_rank=5, target_modules=("q_proj", "down_proj"), rslora=True)
    (report,) = reports(Packed(inputs=inputs, slots=2, tokens=512), job(0, 48, recipe=recipe))
    base = TINY.load()
    model = load_with_adapter(describe(TINY), Path(report.checkpoint or "")).model
    assert isinstance(model, PeftModel)
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 4
    rows = encode(inputs.data.examples["validation"], base.tokenizer, max_tokens=inputs.max_tokens)[:16]
    losses = row_losses(model, rows, pad_token=base.tokenizer.pad_token_id)  # type: ignore[arg-type]
    assert [loss.nats for loss in losses] == pytest.approx([loss.nats for loss in report.rows], rel=1e-5)
    config = json.loads((Path(report.checkpoint or "") / "adapter_config.json").read_text())
    assert config["r"] == 5


def test_layers_are_chosen_as_peft_chooses_them(inputs: Inputs) -> None:
    for modules in TARGETS:
        model = TINY.load().model
        chosen = set(targeted(model, replace(STILL, target_modules=modules)))
        with peft_on_transformers():
            wanted = modules if isinstance(modules, str) else list(modules)
            wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=wanted))
        theirs = {
            name.split(".lora_A")[0].removeprefix("base_model.model.")
            for name, _ in wrapped.named_parameters()
            if "lora_A" in name
        }
        assert chosen == theirs


def test_dora_goes_to_solo(inputs: Inputs, caplog: pytest.LogCaptureFixture) -> None:
    dora = replace(STILL, dora=True)
    (found,) = reports(Packed(inputs=inputs, slots=2, tokens=512), job(0, 16, trial="d", recipe=dora))
    assert found.state == "reached"
    assert any("magnitude" in name for name in adapter_of(found))
    assert "Trial d runs on the solo engine: its recipe asks for DoRA" in caplog.text


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_a_recipe_that_adapts_the_output_layer_goes_to_solo(
    inputs: Inputs, caplog: pytest.LogCaptureFixture
) -> None:
    head = replace(STILL, target_modules=("lm_head", "q_proj"))
    engine = Packed(inputs=inputs, slots=2, tokens=512)
    odd, even = reports(engine, job(0, 16, trial="head", recipe=head), job(0, 16, trial="even", recipe=STILL))
    (reference,) = reports(Solo(inputs=inputs, micro_batch=5), job(0, 16, trial="ref", recipe=head))
    assert odd.validation_loss == pytest.approx(reference.validation_loss, rel=1e-5)
    assert even.state == "reached"
    assert "Trial head runs on the solo engine: its recipe adapts the output layer" in caplog.text


def test_closing_leaves_the_model_as_it_was(inputs: Inputs) -> None:
    model = TINY.load().model
    before = model.config._attn_implementation
    base = SharedBase(model)
    base.close()
    assert model.config._attn_implementation == before
    assert not any(part._forward_hooks for part in model.modules())
