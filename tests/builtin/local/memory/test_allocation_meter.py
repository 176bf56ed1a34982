import pytest
import torch

from distillkit_builtin.local.memory.allocation_meter import AllocationMeter

MB = 1_000_000


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_alive_is_counted_and_what_is_freed_is_not(device: str) -> None:
    weight = torch.zeros(500, 500, device=device, requires_grad=True)
    with AllocationMeter() as meter:
        meter.ignore(weight)
        first = torch.zeros(500, 500, device=device)
        view = first[:100]
        assert (meter.now, meter.peak) == (MB, MB)
        product = first @ weight
        assert meter.now == 2 * MB
        del first
        assert meter.now == 2 * MB  # the view and the backward pass hold it
        del product, view
        assert (meter.now, meter.peak) == (0, 2 * MB)


def test_backward_passes_are_seen() -> None:
    weight = torch.zeros(500, 500, requires_grad=True)
    with AllocationMeter() as meter:
        meter.ignore(weight)
        torch.autograd.backward((weight * 2).exp().sum())
        assert weight.grad is not None
        assert meter.now == MB
        assert meter.peak >= 2 * MB
