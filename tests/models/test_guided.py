"""The guided filter behind a generator, against SciPy and against colours that follow lightness."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import uniform_filter

from recolor.models.guided import EPSILON, REACH, guided_upsample


def random_maps(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_at_the_photos_own_size_it_is_the_guided_filter() -> None:
    """He et al. 2013, equations 5, 6 and 8, on what lies far enough from the edges."""
    lightness, ab = random_maps(1, 1, 100, 120), random_maps(1, 2, 100, 120)
    guide = lightness[0, 0].double().numpy()
    mean = lambda plane: uniform_filter(plane, 2 * REACH + 1)  # noqa: E731
    for channel, found in zip(ab[0].double().numpy(), guided_upsample(ab, lightness)[0], strict=True):
        slope = (mean(guide * channel) - mean(guide) * mean(channel)) / (mean(guide**2) - mean(guide) ** 2 + EPSILON)
        expected = mean(slope) * guide + mean(mean(channel) - slope * mean(guide))
        inside = np.s_[2 * REACH : -2 * REACH, 2 * REACH : -2 * REACH]
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_colours_end_where_lightness_changes(factor: int) -> None:
    lightness = torch.full((1, 1, 64, 96), -0.6)
    lightness[..., 46:] = 0.6  # between two pixels of the small maps, or within one
    true = torch.cat([0.5 * lightness, -0.3 * lightness], dim=1)
    small = F.avg_pool2d(F.avg_pool2d(true, 5, 1, 2, count_include_pad=False), factor)  # blurred, as a network predicts
    bilinear = F.interpolate(small, scale_factor=factor, mode="bilinear")
    step = lambda ab: (ab[..., 46] - ab[..., 45]) / (true[..., 46] - true[..., 45])  # noqa: E731
    assert step(guided_upsample(small, lightness)).min() > 0.6
    assert step(bilinear).max() < 0.4


def test_a_single_colour_stays_and_gradients_pass() -> None:
    ab = torch.tensor([0.25, -0.5]).view(1, 2, 1, 1).expand(1, 2, 8, 8).clone().requires_grad_()
    found = guided_upsample(ab, random_maps(1, 1, 32, 32))
    torch.testing.assert_close(found, ab[:, :, :1, :1].expand(1, 2, 32, 32))
    found.sum().backward()
    torch.testing.assert_close(ab.grad.sum(), torch.tensor(2.0 * 32 * 32), rtol=1e-3, atol=0)
