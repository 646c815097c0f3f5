"""Many adapters on one frozen model: each stretch of a packed line gets the update of its own trial."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from torch import nn

from sweep.errors import ConfigError
from sweep.types import Recipe


class Shape(NamedTuple):
    """Of a linear layer."""

    inputs: int
    outputs: int


class Update(NamedTuple):
    """One layer's part of an adapter and its gradient. A: rank x inputs; B: rank x outputs."""

    A: torch.Tensor
    B: torch.Tensor
    A_gradient: torch.Tensor
    B_gradient: torch.Tensor

    def weights(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B as the model computes."""
        return (self.A, self.B) if self.A.dtype == dtype else (self.A.to(dtype), self.B.to(dtype))


class Adapter:
    """One trial's low-rank update of a model's linear layers, y += scale * (x A') B.

    All A lie in one tensor and all B in another, so that an optimiser sees two parameters. Their
    `grad` is always there and is added to. At its exact rank: nothing is padded.
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        *,
        rank: int,
        scale: float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.rank, self.scale, self.shapes = rank, scale, dict(shapes)
        inputs = rank * sum(shape.inputs for shape in shapes.values())
        outputs = rank * sum(shape.outputs for shape in shapes.values())
        self.A, self.B = (
            nn.Parameter(torch.zeros(size, dtype=dtype, device=device)) for size in (inputs, outputs)
        )
        for parameter in (self.A, self.B):
            parameter.grad = torch.zeros_like(parameter)
        self.updates = dict(self._updates())

    def clear_gradients(self) -> None:
        """All zero, in place: the layers' views stay valid."""
        for parameter in (self.A, self.B):
            assert parameter.grad is not None
            parameter.grad.zero_()

    def _updates(self) -> Iterator[tuple[str, Update]]:
        assert self.A.grad is not None
        assert self.B.grad is not None
        a = b = 0
        for name, shape in self.shapes.items():
            a_end, b_end = a + self.rank * shape.inputs, b + self.rank * shape.outputs
            yield (
                name,
                Update(
                    A=self.A.data[a:a_end].view(self.rank, shape.inputs),
                    B=self.B.data[b:b_end].view(self.rank, shape.outputs),
                    A_gradient=self.A.grad[a:a_end].view(self.rank, shape.inputs),
                    B_gradient=self.B.grad[b:b_end].view(self.rank, shape.outputs),
                ),
            )
            a, b = a_end, b_end


def scale_of(recipe: Recipe) -> float:
    """Of a recipe's update. rsLoRA divides by the rank's square root: arXiv:2312.03732."""
    return recipe.lora_alpha / (math.sqrt(recipe.lora_rank) if recipe.rslora else recipe.lora_rank)


def initial_A(seed: int, name: str, rank: int, inputs: int) -> torch.Tensor:
    """A new adapter's A for one layer, rank x inputs, in fp32: decided by seed and layer alone.

    Uniform within 1 / sqrt(inputs), PEFT's distribution; B begins at zero. One draw for all ranks:
    a higher rank adds rows.
    """
    generator = generator_of(seed, name, torch.device("cpu"))
    return torch.empty(rank, inputs).uniform_(-1.0, 1.0, generator=generator) / math.sqrt(inputs)


def generator_of(seed: int, key: object, device: torch.device) -> torch.Generator:
    """One that a trial's seed and the key decide, whoever else draws."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def targeted(model: nn.Module, recipe: Recipe) -> dict[str, nn.Linear]:
    """The linear layers that a recipe adapts, by their name in the model, as PEFT chooses them.

    Raises ConfigError if the recipe names a layer that the model doesn't have.
    """
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    if isinstance(recipe.target_modules, str):
        head = model.get_output_embeddings()  # type: ignore[operator]
        return {name: part for name, part in linear.items() if part is not head}
    for wanted in recipe.target_modules:
        if not any(_is_called(name, wanted) for name in linear):
            offered = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            raise ConfigError(
                f"recipe.target_modules: {wanted!r} is no linear layer of the model; each name must be one. "
                f"Write all-linear, or choose from {offered}."
            )
    return {
        name: part
        for name, part in linear.items()
        if any(_is_called(name, wanted) for wanted in recipe.target_modules)
    }


def peft_config(recipe: Recipe, modules: str | Sequence[str]) -> LoraConfig:
    """What PEFT calls the recipe's adapter."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


def peft_name(name: str) -> str:
    """What PEFT calls the model's layer of this name."""
    return f"base_model.model.{name}"


def _is_called(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


class Dropout:
    """Masks of a part's rows. Each row draws its own, so they don't depend on what stands beside it.

    share: dropped of an adapter's inputs. rows: tokens of each row. draws: a generator for each.
    """

    def __init__(self, share: float, rows: Sequence[int], draws: Sequence[torch.Generator]) -> None:
        self._share, self._rows, self._draws = share, rows, draws

    def mask(self, width: int, like: torch.Tensor) -> torch.Tensor:
        """What the next layer's inputs are multiplied by, tokens x width: 0, or 1 / (1 - share)."""
        kept = [
            torch.rand(tokens, width, generator=draw, device=draw.device) >= self._share
            for tokens, draw in zip(self._rows, self._draws, strict=True)
        ]
        return torch.cat(kept).to(like).div_(1.0 - self._share)


class Lane(NamedTuple):
    """A stretch of the line and the adapter that updates it."""

    start: int
    stop: int
    adapter: Adapter
    dropout: Dropout | None


@dataclass
class Lanes:
    """Hooks on a model's linear layers that add each lane's update while `on` holds.

    The model itself stays as it is, and outside `on` computes what it always did.
    """

    layers: Mapping[str, nn.Linear]
    device: torch.device
    _active: tuple[Lane, ...] = ()
    _handles: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Without an input that wants a gradient, autograd would leave out the first layers' updates.
        self._anchor = torch.zeros((), requires_grad=True, device=self.device)
        for name, layer in self.layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))

    def remove(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def on(self, lanes: Sequence[Lane]) -> Iterator[None]:
        """Within, the model's layers update these stretches of their input, and no others."""
        before, self._active = self._active, tuple(lanes)
        try:
            yield
        finally:
            self._active = before

    def _hook(self, name: str) -> Any:
        def add(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            lanes = tuple(lane for lane in self._active if name in lane.adapter.updates)
            if not lanes:
                return output
            (x,) = inputs
            return _Add.apply(output, x, self._anchor, name, lanes)  # type: ignore[no-any-return, no-untyped-call]

        return add


class _Add(torch.autograd.Function):
    """A layer's output plus each lane's update; gradients of A and B are added to the adapters' own.

    output: T x outputs, changed in place; x: T x inputs; both under any leading dimensions. The
    products of one lane touch no other lane's tokens: what is not finite stays where it arose.
    """

    @staticmethod
    def forward(
        ctx: Any,
        output: torch.Tensor,
        x: torch.Tensor,
        anchor: torch.Tensor,
        name: str,
        lanes: tuple[Lane, ...],
    ) -> torch.Tensor:
        y_TO, x_TI = output.view(-1, output.shape[-1]), x.reshape(-1, x.shape[-1])
        ctx.lanes, ctx.name, ctx.kept = lanes, name, []
        for lane in lanes:
            update = lane.adapter.updates[name]
            inputs = x_TI[lane.start : lane.stop]
            mask = lane.dropout.mask(x_TI.shape[1], inputs) if lane.dropout else None
            if mask is not None:
                inputs = inputs * mask
            A, B = update.weights(x.dtype)
            hidden = inputs @ A.T
            y_TO[lane.start : lane.stop].addmm_(hidden, B, alpha=lane.adapter.scale)
            ctx.kept.append((hidden, mask))
        ctx.mark_dirty(output)
        ctx.save_for_backward(x_TI)
        ctx.shape = x.shape
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x_TI,) = ctx.saved_tensors
        g_TO = gradient.reshape(-1, gradient.shape[-1])
        down = None
        if ctx.needs_input_grad[1]:
            covered = sum(lane.stop - lane.start for lane in ctx.lanes) == x_TI.shape[0]
            down = torch.empty_like(x_TI) if covered else torch.zeros_like(x_TI)
        for lane, (hidden, mask) in zip(ctx.lanes, ctx.kept, strict=True):
            update, scale = lane.adapter.updates[ctx.name], lane.adapter.scale
            g = g_TO[lane.start : lane.stop]
            inputs = x_TI[lane.start : lane.stop]
            if mask is not None:
                inputs = inputs * mask
            A, B = update.weights(x_TI.dtype)
            back = (g @ B.T).mul_(scale)
            _accumulate(update.B_gradient, hidden.T, g, scale)
            _accumulate(update.A_gradient, back.T, inputs, 1.0)
            if down is not None:
                part = down[lane.start : lane.stop]
                torch.mm(back, A, out=part)
                if mask is not None:
                    part.mul_(mask)
        return gradient, down.view(ctx.shape) if down is not None else None, None, None, None


def _accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_(left @ right, alpha=scale)
