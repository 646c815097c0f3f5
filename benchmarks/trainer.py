"""What a user writes by hand with HF Trainer and PEFT; the scripts beside this one measure against it.

    python benchmarks/trainer.py job.json

B1: one trial after another in one process, the base model loaded once and unwrapped in between, the
recipe's batch in memory at once, rows padded; whatever the recipe doesn't say is Trainer's default. Since
transformers 5 that is fused AdamW. B2: the same without padding, by the flattening collator with position
ids. B0: a process per trial, imports and loading included, which is what the command runs. It prints one
line of JSON: the wall clock when each of its phases ended.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import run
from typing import Any, Literal, TypedDict

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from sweep.data.encode import Encoded
from sweep.engines.model import Base, ModelSource, describe, from_description, peft_on_transformers
from sweep.engines.stream import Stream
from sweep.types import Recipe

Variant = Literal["B1", "B2"]


class Feature(TypedDict):
    """A row as a data set of transformers holds it."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training run.

    features: rows in the order in which they are learned, as many as the schedule has. stop: examples
    after which training ends, wherever the schedule does. evaluation: rows for `Trainer.evaluate`.
    """

    recipe: Recipe
    seed: int
    features: Sequence[Feature]
    stop: int
    evaluation: Sequence[Feature] = ()
    variant: Variant = "B1"

    @property
    def steps(self) -> int:
        """Of the whole schedule."""
        return len(self.features) // self.recipe.batch_size


def features(rows: Sequence[Encoded]) -> list[Feature]:
    """The rows as Trainer's collators read them."""
    return [{"input_ids": row.input_ids.tolist(), "labels": row.labels} for row in rows]


def in_order(rows: Sequence[Any], seed: int, horizon: int) -> list[Any]:
    """What an engine of ours learns up to the horizon, in its order."""
    stream = Stream(len(rows), seed=seed)
    return [rows[stream[position]] for position in range(horizon)]


class Times(TrainerCallback):
    """When the first step was ready, when each ended, and when a checkpoint was whole; ends training."""

    def __init__(self, stop: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stop, self._clock = stop, clock
        self.ready: float | None = None
        self.steps: list[float] = []
        self.saved: float | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.ready is None:
            self.ready = now(self._clock)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.steps.append(now(self._clock))
        if state.global_step >= self._stop:
            control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.saved = now(self._clock)


def now(clock: Callable[[], float] = time.perf_counter) -> float:
    """The clock once the device has done all that it was asked to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock()


@contextmanager
def adapted(base: Base, recipe: Recipe, seed: int) -> Iterator[PeftModel]:
    """The base with a new adapter; without it again afterwards."""
    modules = recipe.target_modules
    set_seed(seed)
    with peft_on_transformers():
        wrapped = get_peft_model(
            base.model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=recipe.lora_rank,
                lora_alpha=recipe.lora_alpha,  # type: ignore[arg-type]
                lora_dropout=recipe.lora_dropout,
                use_rslora=recipe.rslora,
                target_modules=modules if isinstance(modules, str) else list(modules),
            ),
        )
    try:
        yield wrapped  # type: ignore[misc]
    finally:
        wrapped.unload()


def trainer_for(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    work: Work,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    **more: Any,
) -> Trainer:
    """A Trainer ready to train. folder: for its checkpoints. more: further TrainingArguments."""
    transformers_logging.set_verbosity_error()
    trainer = Trainer(
        model=model,
        args=_arguments(work, folder, bf16=model.dtype is torch.bfloat16, more=more),
        train_dataset=work.features,  # type: ignore[arg-type]
        eval_dataset=work.evaluation or None,  # type: ignore[arg-type]
        data_collator=_collator(tokenizer, work.variant),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _collator(tokenizer: PreTrainedTokenizerBase, variant: Variant) -> Callable[..., Any]:
    return DataCollatorForSeq2Seq(tokenizer) if variant == "B1" else DataCollatorWithFlattening()


def _arguments(work: Work, folder: Path, *, bf16: bool, more: Mapping[str, Any]) -> TrainingArguments:
    recipe, on_gpu = work.recipe, torch.cuda.is_available()
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": recipe.batch_size,
        # All at once: then Trainer's mean over batches is the mean over tokens that engines report.
        "per_device_eval_batch_size": max(8, len(work.evaluation)),
        "num_train_epochs": 1,
        # Of rows that lie in a random order already, the one in which our engines learn them.
        "train_sampling_strategy": "sequential",
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_gradient_norm,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": round(recipe.warmup_fraction * work.steps),
        "seed": work.seed,
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "use_cpu": not on_gpu,
        "bf16": bf16 and on_gpu,
    }
    if work.variant == "B2":
        given["optim"] = "adamw_torch_fused"
    arguments = TrainingArguments(**{**given, **more})
    # Reading the device counts the GPUs; more than one would be DataParallel, with n times the batch.
    _ = arguments.device
    arguments._n_gpu = min(arguments._n_gpu, 1)
    return arguments


def train(base: Base, work: Work, *, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Train one trial and throw it away; when what happened."""
    times = Times(work.stop // work.recipe.batch_size, clock)
    with tempfile.TemporaryDirectory() as folder, adapted(base, work.recipe, work.seed) as model:
        trainer_for(model, base.tokenizer, work, Path(folder), [times]).train()
    return times


# A process of its own


def write_job(path: Path, source: ModelSource, work: Work, checkpoint: Path | None = None) -> Path:
    """What the command needs, as JSON. checkpoint: of Trainer, to go on from."""
    job = {"model": describe(source), "work": dataclasses.asdict(work), "checkpoint": checkpoint}
    path.write_text(json.dumps(job, default=str))
    return path


def in_new_process(job: Path) -> dict[str, float]:
    """Seconds from the start of a process until the end of each phase, and until it was gone."""
    begun = time.time()
    done = run([sys.executable, __file__, str(job)], capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"{job}: the process ended with {done.returncode}:\n{done.stderr[-2000:]}")
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {name: at - begun for name, at in {**times, "ended": ended}.items()}


def main() -> None:
    """One trial from its job file; prints when each phase ended."""
    imported = time.time()
    job = json.loads(Path(sys.argv[1]).read_text())
    work = Work(**{**job["work"], "recipe": Recipe(**job["work"]["recipe"])})
    base = from_description(job["model"]).load()
    loaded = time.time()
    times = Times(work.stop // work.recipe.batch_size, time.time)
    with tempfile.TemporaryDirectory() as folder, adapted(base, work.recipe, work.seed) as model:
        trainer = trainer_for(model, base.tokenizer, work, Path(folder), [times])
        trainer.train(resume_from_checkpoint=job["checkpoint"])
    told = {"imported": imported, "loaded": loaded, "ready": times.ready, "trained": times.steps[-1]}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
