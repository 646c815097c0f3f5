"""What is known of a configuration before anything runs."""

from __future__ import annotations

import pytest

from sweep.assembly import at_once
from sweep.backends import devices
from sweep.config import compose

TWO_SLOTS = ["+experiment=smoke", "engine.slots=2", "budget.trials=40"]


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (["backend=inline"], 2),
        (["backend=pool"], 8),
        (["backend=pool", "backend.workers=3"], 6),
        (["backend=ray"], 8),
        (["backend=ray", "backend.gpus_per_worker=0.5"], 16),
        (["backend=ray", "backend.gpus_per_worker=0"], 16),
        (["backend=ray", "backend.workers=3"], 6),
        (["backend=ray", "backend.address=auto", "backend.workers=3"], 6),
        # Nobody knows how large it grows.
        (["backend=ray", "backend.address=auto"], 40),
    ],
)
def test_so_many_trials_are_in_training_at_once_at_most(
    backend: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine of four GPUs and eight cores."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: 4)
    monkeypatch.setattr("sweep.backends.ray.cores", lambda: 8)
    assert at_once(compose([*TWO_SLOTS, *backend])) == expected
