"""The strength of an adversary, measured and set at the generator's output.

The scale of a Wasserstein critic's scores is arbitrary, so fixed weights do not make two objectives comparable. The ratio of
the adversarial gradient to L1's at the output measures the strength, and a chosen ratio makes objectives comparable.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SMALLEST = 1e-12  # a gradient of 0 divides nothing by 0


def balanced_gradient(
    l1: Tensor, adversarial: Tensor, ab: Tensor, balance: float | None, mean: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[Tensor, Tensor]:
    """The gradient of both weighted losses at the generator's output `ab` (B, 2, H, W), and a scalar: the norm of the
    adversarial part as a multiple of L1's.

    With a `balance` the adversarial part is scaled to that multiple: an adaptive weight as in VQGAN (Esser et al. 2021, eq. 7),
    taken at the output instead of the last layer, so that `ab.backward(gradient)` is the only backward pass through the
    generator. `mean` averages a tensor over processes that share the batch.
    """
    (of_l1,) = torch.autograd.grad(l1, ab, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, ab, retain_graph=True)
    squares = mean(torch.stack([of_adversarial.square().sum(), of_l1.square().sum()]))
    ratio = (squares[0] / squares[1].clamp(min=SMALLEST**2)).sqrt()
    if balance is None:
        return of_l1 + of_adversarial, ratio
    return of_l1 + of_adversarial * (balance / ratio.clamp(min=SMALLEST)), torch.full_like(ratio, balance)
