"""Each objective against a critic whose scores are known, and all of them against what they have in common."""

import math
from collections.abc import Iterator

import pytest
import torch
from surroundings import ROOT
from torch import nn
from torch.optim import Adam, RMSprop
from training_runs import GAN, WGAN

from recolor.core.params import RECIPES, Params
from recolor.models.objectives import (
    ADVERSARIAL,
    ClippedWGAN,
    Objective,
    PenalisedWGAN,
    VanillaGAN,
)


class LinearCritic(nn.Module):
    """score = slope * mean(image): its gradient has the norm slope / sqrt(image.numel())."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.slope * image.mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def real() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def constant(value: float) -> torch.Tensor:
    return torch.full((2, 3, 4, 4), float(value))


def test_gan_losses_are_the_cross_entropies() -> None:
    # Scores 2 for real and -1 for fake: softplus(-score) on real, softplus(score) on fake.
    on_real, on_fake = math.log1p(math.exp(-2)), math.log1p(math.exp(-1))
    loss = VanillaGAN().critic_loss(LinearCritic(1.0), constant(2), constant(-1))
    assert loss.total.item() == pytest.approx((on_real + on_fake) / 2)
    assert (loss.real.item(), loss.fake.item()) == pytest.approx((on_real, on_fake))
    assert loss.estimate.item() == pytest.approx(3)
    fooled = VanillaGAN().generator_loss(LinearCritic(1.0), constant(-1))
    assert fooled.item() == pytest.approx(math.log1p(math.exp(1)))  # -log sigmoid(-1): non-saturating


def test_clipped_wgan_losses_are_differences_of_means() -> None:
    loss = ClippedWGAN().critic_loss(LinearCritic(1.0), constant(2), constant(-1))
    assert loss.total.item() == pytest.approx(-3)
    assert loss.estimate.item() == pytest.approx(3)
    assert ClippedWGAN().generator_loss(LinearCritic(1.0), constant(-1)).item() == pytest.approx(1)


def test_penalty_of_a_linear_critic_is_known_and_weighed(real: torch.Tensor) -> None:
    critic = LinearCritic(5 * real[0].numel() ** 0.5)  # gradient norm 5 everywhere, so (5 - 1)^2
    loss = PenalisedWGAN(weight=10).critic_loss(critic, real, -real)
    assert loss.penalty.item() == pytest.approx(16, rel=1e-5)
    assert loss.total.item() == pytest.approx(-loss.estimate.item() + 160, rel=1e-5)


def test_penalty_is_each_photos_own(real: torch.Tensor) -> None:
    class Square(nn.Module):
        """score = sum(image^2) / 2: its gradient is the image."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return (image**2).sum(dim=(1, 2, 3), keepdim=True) / 2

    norms = real.flatten(1).norm(dim=1)
    assert PenalisedWGAN().penalty(Square(), real, real).item() == pytest.approx(((norms - 1) ** 2).mean().item())


def test_penalty_reaches_the_critics_weights(real: torch.Tensor) -> None:
    critic = LinearCritic(5 * real[0].numel() ** 0.5)
    PenalisedWGAN().penalty(critic, real, -real).backward()
    # d/ds (s / n - 1)^2 with s / n = 5 and n = sqrt(numel)
    assert critic.slope.grad.item() == pytest.approx(2 * 4 / real[0].numel() ** 0.5, rel=1e-5)


def test_clipping_bounds_every_weight_batch_norms_too() -> None:
    critic = nn.Sequential(nn.Conv2d(3, 4, 4), nn.BatchNorm2d(4))
    ClippedWGAN(clip=0.01).after_critic_step(critic)
    assert max(weight.abs().max().item() for weight in critic.parameters()) <= 0.01


def registered() -> Iterator[Objective]:
    """Each objective of the registry, with the settings of each recipe."""
    for recipe in RECIPES:
        params = Params(ROOT / "params.yaml", recipe=recipe)
        yield from (params.section(name, kind).objective() for name, kind in ADVERSARIAL.items())


@pytest.mark.parametrize("objective", dict.fromkeys(registered()), ids=repr)
def test_critic_separates_and_generator_approaches(objective: Objective, real: torch.Tensor) -> None:
    critic = LinearCritic(0.005)
    fake = (real - 0.5).requires_grad_()
    objective.critic_loss(critic, real, fake.detach()).total.backward()
    assert critic.slope.grad < 0  # a steeper slope separates real from fake, and descent steepens it
    objective.generator_loss(critic, fake).backward()
    assert (fake.grad < 0).all()  # brighter fakes look real, and descent brightens them


def test_settings_choose_objective_and_optimiser() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    assert GAN.objective() == VanillaGAN()
    assert GAN.n_critic == 1
    adam = GAN.optimizer(weights)
    assert isinstance(adam, Adam)
    assert (adam.defaults["lr"], adam.defaults["betas"]) == (2e-3, (0.5, 0.999))

    assert WGAN.objective() == ClippedWGAN(clip=0.125)
    assert WGAN.critic_norm
    rmsprop = WGAN.optimizer(weights)
    assert isinstance(rmsprop, RMSprop)
    assert (rmsprop.defaults["lr"], rmsprop.defaults["momentum"]) == (1e-3, 0)

    penalised = WGAN.model_copy(update={"constraint": "gradient_penalty", "penalty_weight": 7})
    assert penalised.objective() == PenalisedWGAN(weight=7)
    assert not penalised.critic_norm
    adam = penalised.optimizer(weights)
    assert isinstance(adam, Adam)
    assert adam.defaults["betas"] == (0.0, 0.9)
