"""A base model that a group of processes holds together: its layers by FSDP, the rest by each of them.

Each trains the same adapter, a replica, on its share of every batch. All take the same steps at the same
time: what decides on the next one is the same to the bit in all of them, or comes from the first.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from sweep.engines.lora import generator_of
from sweep.errors import ModelError
from sweep.ranks import this_rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sweep.engines.model import Base, ModelSource

# None of its own: the driver ends a worker that gives no sign of life.
_DEADLINE = timedelta(days=30)


def loaded(source: ModelSource) -> Base:
    """The base model; in a group, spread over its devices.

    Its processes read it one after another, so the machine's memory holds it once. Raises ModelError where
    it does not tell what its layers are.
    """
    rank = this_rank()
    if rank.count == 1:
        return source.load()
    _join()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh, base = init_device_mesh(device, (rank.count,)), None
    for turn in range(rank.count):
        if turn == rank.number:
            base = source.load()
            _shard(base.model, mesh)
        dist.barrier()
    return cast("Base", base)


def leave() -> None:
    """Part from the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def summed(value: torch.Tensor) -> torch.Tensor:
    """The sum over the group, in place."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def agreed(value: torch.Tensor) -> torch.Tensor:
    """What the first process of the group has there, in place."""
    if dist.is_initialized():
        dist.broadcast(value, src=0)
    return value


def sum_gradients(model: nn.Module) -> None:
    """Each trainable weight's gradient is the sum over the group."""
    if not dist.is_initialized():
        return
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    together = summed(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = together.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def draw_apart(seed: int, step: int) -> None:
    """In a group, seed what a process draws in that step: by the trial, the step and its rank alone.

    Their rows differ in length, so each has drawn another amount by then, and one state is saved.
    """
    if dist.is_initialized():
        key = f"{step}/{this_rank().number}"
        torch.manual_seed(generator_of(seed, key, torch.device("cpu")).initial_seed())


def _join() -> None:
    if dist.is_initialized():
        return
    rank = this_rank()
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1",
        rank.port,
        rank.count,
        is_master=rank.first,
        master_listen_fd=rank.listener,
        timeout=_DEADLINE,
    )
    dist.init_process_group(store=store, rank=rank.number, world_size=rank.count, timeout=_DEADLINE)


def _shard(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Spread a frozen model's layers, now, for every adapter to come; embeddings and head come whole."""
    kinds = set(model._no_split_modules or ())
    layers = [part for part in model.modules() if type(part).__name__ in kinds]
    inner = model.base_model
    if not layers or inner is model:
        raise ModelError(
            f"backend.devices_per_worker={mesh.size()}: spreads a model's layers, and {type(model).__name__} "
            "does not tell what they are (`_no_split_modules`). Write backend.devices_per_worker=1, or "
            "choose another model."
        )
    # One after another onto the device, where each leaves its share.
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    whole = {parameter for part in ends if part is not None for parameter in part.parameters()}
    # Around the layers, and not the model itself: PEFT calls that one's `forward` past all hooks.
    fully_shard(inner, mesh=mesh, ignored_params=whole)
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(mesh.device_type)
