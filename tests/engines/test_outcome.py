"""What a failure means for the search."""

from __future__ import annotations

import errno
import gc
import weakref

import pytest
import torch
from safetensors import SafetensorError

from sweep.engines.outcome import failed, settle
from sweep.errors import CheckpointError
from tests.contracts.engine import job


@pytest.mark.parametrize(
    "full",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # As safetensors says it on a full tmpfs.
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        # As torch.save says it there.
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_a_full_disk_ends_the_search_and_not_the_trial(full: Exception) -> None:
    with pytest.raises(OSError, match="No space left") as told:
        failed(job(), full)
    assert told.value.errno == errno.ENOSPC


def test_a_lost_gpu_ends_the_process_and_not_one_trial_after_another() -> None:
    lost = torch.AcceleratorError("CUDA error: unspecified launch failure")
    with pytest.raises(torch.AcceleratorError, match="unspecified launch failure"):
        failed(job(), lost)


def test_another_error_is_the_trials_own() -> None:
    assert failed(job(), RuntimeError("no such layer")).state == "failed"
    assert failed(job(), SafetensorError("invalid header")).state == "failed"


def test_a_broken_checkpoint_is_no_failure_of_the_trial() -> None:
    outcome = failed(job(24, 48), CheckpointError("x is no complete checkpoint"))
    assert (outcome.state, outcome.examples_seen) == ("broken", 24)


def test_modules_are_left_out_of_collections_and_what_comes_later_is_not() -> None:
    gc.unfreeze()
    settle()
    frozen = gc.get_freeze_count()
    assert frozen > 100_000

    class Knot:
        def __init__(self) -> None:
            self.itself = self

    reference = weakref.ref(Knot())
    assert gc.collect() > 0
    assert reference() is None
    settle()
    assert gc.get_freeze_count() == frozen, "once in a process: what has gone since could never be freed"
