"""The loss of single tokens against torch's cross entropy in fp64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from sweep.engines.nats import nats


@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float64, 1e-14), (torch.float32, 2e-7), (torch.bfloat16, 2e-3)]
)
def test_losses_and_gradients_over_a_large_vocabulary(dtype: torch.dtype, allowed: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(20, 49152, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(49152, (20,), generator=generator)
    weights = torch.rand(20, generator=generator)
    exact = logits.detach().double().requires_grad_()
    wanted = functional.cross_entropy(exact, targets, reduction="none")
    wanted.backward(weights.double())
    found = nats(logits * 1, targets)
    assert found.dtype is torch.promote_types(dtype, torch.float32)
    found.backward(weights.to(found.dtype))
    assert logits.grad is not None
    assert exact.grad is not None
    # bf16 rounds the gradient when it is handed back, not the loss.
    torch.testing.assert_close(found.double(), wanted, rtol=min(allowed, 2e-7), atol=0.0)
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=allowed * 4, atol=allowed * 1e-3)
