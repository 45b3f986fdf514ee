"""How strongly an adversary pulls at the generator, measured and set at the generator's output.

At fixed weights a comparison of objectives is one of two scales: the scores of a Wasserstein critic have an arbitrary one. The
ratio of the two gradients at the output tells how strong the adversary is, and a chosen ratio makes objectives comparable.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SMALLEST = 1e-12  # a critic without any gradient at the photo leaves L1 alone


def _unchanged(values: Tensor) -> Tensor:
    return values


def output_gradients(l1: Tensor, adversarial: Tensor, ab: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both weighted losses at the generator's output `ab` (B, 2, H, W). The graphs are kept."""
    (of_l1,) = torch.autograd.grad(l1, ab, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, ab, retain_graph=True)
    return of_l1, of_adversarial


def gradient_ratio(of_l1: Tensor, of_adversarial: Tensor, mean: Callable[[Tensor], Tensor] = _unchanged) -> Tensor:
    """Scalar: the norm of the adversarial gradient as a multiple of L1's.

    `mean` averages a tensor over processes that share the batch.
    """
    squares = mean(torch.stack([of_adversarial.square().sum(), of_l1.square().sum()]))
    return (squares[0] / squares[1].clamp(min=SMALLEST**2)).sqrt()


def balanced_gradient(
    of_l1: Tensor, of_adversarial: Tensor, balance: float, mean: Callable[[Tensor], Tensor] = _unchanged
) -> Tensor:
    """The gradient to go back into the generator with: L1's, plus the adversarial one at `balance` times its norm.

    An adaptive weight as in VQGAN (Esser et al. 2021, eq. 7), taken at the output instead of the last layer, so that
    `ab.backward(balanced_gradient(...))` is the only backward pass through the generator.
    """
    ratio = gradient_ratio(of_l1, of_adversarial, mean)
    return of_l1 + of_adversarial * (balance / ratio.clamp(min=SMALLEST))
