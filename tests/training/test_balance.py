"""The adversary's gradient at the generator's output, on losses whose gradients are known."""

import pytest
import torch

from recolor.training.methods import balanced_gradient


@pytest.fixture
def ab() -> torch.Tensor:
    return torch.zeros(4, 2, 8, 8, requires_grad=True)


def alone(values: torch.Tensor) -> torch.Tensor:
    """The mean over one process."""
    return values


def test_the_ratio_is_that_of_the_slopes(ab: torch.Tensor) -> None:
    gradient, ratio = balanced_gradient(100 * ab.mean(), -3 * ab.mean(), ab, None, alone)
    assert ratio.item() == pytest.approx(0.03)
    torch.testing.assert_close(gradient, torch.full_like(ab, 97 / ab.numel()))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])  # of the critic's scores, which must not matter
@pytest.mark.parametrize("balance", [0.5, 1.5])
def test_the_adversarial_part_has_the_norm_that_was_asked_for(ab: torch.Tensor, balance: float, scale: float) -> None:
    signs = torch.sign(torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    total, ratio = balanced_gradient(100 * ab.mean(), scale * (signs * ab).mean(), ab, balance, alone)
    torch.testing.assert_close(total, 100 / ab.numel() * (1 + balance * signs))
    assert ratio == balance


def test_one_backward_pass_trains_the_generator_with_it() -> None:
    weight = torch.ones(2, requires_grad=True)
    ab = weight * torch.tensor([3.0, 4.0])
    ab.backward(balanced_gradient(ab.sum(), 7 * (ab[0] - ab[1]), ab, 1.0, alone)[0])
    torch.testing.assert_close(weight.grad, torch.tensor([6.0, 0.0]))  # (1 + 1) * 3 and (1 - 1) * 4


def test_a_critic_that_is_flat_leaves_l1_alone(ab: torch.Tensor) -> None:
    gradient, _ = balanced_gradient(ab.mean(), 0 * ab.sum(), ab, 1.5, alone)
    torch.testing.assert_close(gradient, torch.full_like(ab, 1 / ab.numel()))


def test_processes_that_share_a_batch_have_one_ratio(ab: torch.Tensor) -> None:
    seen: list[torch.Tensor] = []

    def mean(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return torch.tensor([4.0, 1.0])

    assert balanced_gradient(ab.mean(), ab.mean(), ab, None, mean)[1].item() == pytest.approx(2)
    assert len(seen) == 1
