"""One job in the packed engine: its adapter, its optimiser, its place in the data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

from sweep.data.encode import Encoded
from sweep.engines import checkpoint
from sweep.engines.layout import length
from sweep.engines.lora import Adapter, Dropout, generator_of, initial_A, peft_config, peft_name
from sweep.engines.schedule import schedule_of, whole_steps
from sweep.engines.shared_base import Part
from sweep.engines.stream import Stream
from sweep.errors import CheckpointError
from sweep.types import Job, Progress

_ADAPTER_CONFIG, _ADAPTER = checkpoint.ADAPTER_FILES
_MOMENTS = "optimizer.safetensors"
_STATE = "state.json"


class PassShare(NamedTuple):
    """One pass of a slot. occupancy: share of the slots that were busy. padding: of attention's cells."""

    occupancy: float
    padding: float


class Slot:
    """A trial in training. One optimiser step takes as many passes as its batch needs.

    Between steps its state is adapter, moments and examples seen; dropout and data order follow
    from the seed and these. Gradients of a batch add up in the adapter until the step. shared: how
    many tokens all rows begin with.
    """

    def __init__(self, job: Job, rows: Sequence[Encoded], adapter: Adapter, *, shared: int = 0) -> None:
        recipe = job.trial.recipe
        self.job, self.adapter = job, adapter
        self.examples_seen = whole_steps(job, job.start)
        self.steps: list[Progress] = []
        self.seconds = 0.0
        self.passes: list[PassShare] = []
        self._rows = rows
        self.shared = 0 if recipe.lora_dropout else shared
        self._stream = Stream(len(rows), seed=job.trial.seed)
        self._factor = schedule_of(job).factor()
        self._optimiser = torch.optim.AdamW(
            [{"params": [adapter.A]}, {"params": [adapter.B]}],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        # Now and not at the first step: a slot takes all of its memory when it is taken.
        for parameter in (adapter.A, adapter.B):
            self._optimiser.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.restart_batch()

    @property
    def due(self) -> bool:
        """Whether training has come to the job's rung."""
        return self.examples_seen >= self.job.stop

    @property
    def bytes(self) -> int:
        """Of weights, gradients and two moments."""
        parameters = (self.adapter.A, self.adapter.B)
        return sum(4 * parameter.numel() * parameter.element_size() for parameter in parameters)

    @property
    def metrics(self) -> dict[str, float]:
        """How well its passes were used, on average: what a pass reports, by name."""
        if not self.passes:
            return {}
        columns = zip(*self.passes, strict=True)
        return {
            name: sum(column) / len(column) for name, column in zip(PassShare._fields, columns, strict=True)
        }

    # The batch

    def restart_batch(self) -> None:
        """Forget what passes since the last step have added."""
        self._positions = range(self.examples_seen, self.examples_seen + self.job.trial.recipe.batch_size)
        self._batch = [self._rows[self._stream[position]] for position in self._positions]
        self._learned = sum(row.response_tokens for row in self._batch)
        self._next, self._nats = 0, 0.0
        self.adapter.clear_gradients()

    @property
    def waiting(self) -> Sequence[Encoded]:
        """Rows of the batch that no pass has taken yet."""
        return self._batch[self._next :]

    def room_for(self, row: Encoded) -> int:
        """Tokens that one more row takes in a pass, beside the shared ones."""
        return length(row) - self.shared

    @property
    def weight(self) -> float:
        """What a response token counts: the loss is their mean over the whole batch."""
        return 1.0 / self._learned

    def take(self, count: int) -> Part:
        """The next so many of `waiting`, with their dropout."""
        taken = slice(self._next, self._next + count)
        self._next += count
        rows, share = self._batch[taken], self.job.trial.recipe.lora_dropout
        if not share:
            return Part(self.adapter, rows, self.shared)
        device, seed = self.adapter.A.device, self.job.trial.seed
        draws = [generator_of(seed, position, device) for position in self._positions[taken]]
        return Part(self.adapter, rows, dropout=Dropout(share, [length(row) for row in rows], draws))

    def add(self, nats: float) -> None:
        """Count the loss of a pass."""
        self._nats += nats

    def step(self) -> Progress:
        """One optimiser step with the gradients of the whole batch."""
        recipe = self.job.trial.recipe
        number = self.examples_seen // recipe.batch_size
        rate = recipe.learning_rate * self._factor(number)
        norm = self._clip(recipe.max_gradient_norm)
        for group, ratio in zip(self._optimiser.param_groups, (1.0, recipe.lora_plus_ratio), strict=True):
            group["lr"] = rate * ratio
        self._optimiser.step()
        self.examples_seen += recipe.batch_size
        progress = Progress(
            job=self.job.id,
            trial=self.job.trial.id,
            examples_seen=self.examples_seen,
            train_loss=self._nats * self.weight,
            gradient_norm=norm,
            learning_rate=rate,
            tokens=sum(len(row.input_ids) for row in self._batch),
        )
        self.steps.append(progress)
        self.restart_batch()
        return progress

    def _clip(self, limit: float) -> float:
        """The gradient's norm before it is clipped to `limit`."""
        gradients = [self.adapter.A.grad, self.adapter.B.grad]
        # In fp32 the sum over so long a tensor is off by 1e-3.
        norm = math.hypot(
            *(float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) for gradient in gradients)
        )
        share = limit / (norm + 1e-6)
        if share < 1.0:
            for gradient in gradients:
                gradient.mul_(share)  # type: ignore[union-attr]
        return norm

    # Its state on disk

    def save(self, folder: Path, base: str) -> None:
        """The whole state into an empty folder; the adapter as PEFT reads it. base: the model's name."""
        save_adapter(self.adapter, self.job, folder, base)
        moments = {}
        for name, parameter in (("A", self.adapter.A), ("B", self.adapter.B)):
            state = self._optimiser.state[parameter]
            moments[f"{name}.mean"], moments[f"{name}.square"] = state["exp_avg"], state["exp_avg_sq"]
            moments[f"{name}.step"] = state["step"]
        save_file(moments, folder / _MOMENTS)
        (folder / _STATE).write_text(json.dumps({"examples_seen": self.examples_seen}))

    def load_moments(self, folder: Path) -> None:
        """The optimiser's part of a state. Raises CheckpointError if it belongs elsewhere."""
        seen = json.loads((folder / _STATE).read_text())["examples_seen"]
        if seen != self.examples_seen:
            raise CheckpointError(f"{folder} holds {seen} examples, the job starts at {self.examples_seen}.")
        moments = load_file(folder / _MOMENTS)
        for name, parameter in (("A", self.adapter.A), ("B", self.adapter.B)):
            state = self._optimiser.state[parameter]
            state["step"].copy_(moments[f"{name}.step"])
            state["exp_avg"].copy_(moments[f"{name}.mean"])
            state["exp_avg_sq"].copy_(moments[f"{name}.square"])


def begin(adapter: Adapter, seed: int) -> None:
    """A new adapter: A random, B zero, so that it changes nothing yet."""
    for name, update in adapter.updates.items():
        rank, inputs = update.A.shape
        update.A.copy_(initial_A(seed, name, rank, inputs))


def save_adapter(adapter: Adapter, job: Job, folder: Path, base: str) -> None:
    """The adapter in PEFT's layout."""
    recipe = job.trial.recipe
    weights = {}
    for name, update in adapter.updates.items():
        weights[f"{peft_name(name)}.lora_A.weight"] = update.A
        weights[f"{peft_name(name)}.lora_B.weight"] = update.B.T.contiguous()
    save_file(weights, folder / _ADAPTER, metadata={"format": "pt"})
    config = peft_config(recipe, sorted(adapter.updates))
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))


def load_adapter(adapter: Adapter, folder: Path) -> None:
    """Weights that `save_adapter` wrote. Raises CheckpointError if they are of another shape."""
    weights = load_file(folder / _ADAPTER)
    wanted = {
        f"{peft_name(name)}.lora_{part}.weight": tensor
        for name, update in adapter.updates.items()
        for part, tensor in (("A", update.A), ("B", update.B.T))
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != shapes:
        raise CheckpointError(f"{folder} holds an adapter of other layers or another rank than the recipe's.")
    for name, tensor in wanted.items():
        tensor.copy_(weights[name])
