"""Shapes, sizes and receptive fields that pix2pix states, and what the networks promise beyond them."""

import pytest
import torch
from networks import parameter_count, receptive_field
from torch import nn

from recolor.models.patchgan import DiscriminatorParams, PatchDiscriminator
from recolor.models.unet import UNetGenerator, UNetParams

PAPER_GENERATOR = UNetParams(kind="unet", filters=64, downs=8, dropout=0.5)
PAPER_DISCRIMINATOR = DiscriminatorParams(filters=64, downs=3, scale=1)


def small_generator(downs: int = 4, dropout: float = 0.5) -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(UNetParams(kind="unet", filters=4, downs=downs, dropout=dropout))


def test_the_papers_generator_has_54_million_weights_and_sees_the_whole_photo() -> None:
    generator = UNetGenerator(PAPER_GENERATOR)
    assert parameter_count(generator) == 54_410_434
    shapes: list[int] = []
    for encode in generator.encoder:
        encode.register_forward_hook(lambda layer, inputs, output: shapes.append(output.shape[-1]))
    with torch.no_grad():
        ab = generator.eval()(torch.zeros(1, 1, 256, 256))
    assert shapes == [128, 64, 32, 16, 8, 4, 2, 1]
    assert ab.shape == (1, 2, 256, 256)


def test_the_papers_discriminator_scores_30x30_patches_of_70x70_pixels() -> None:
    discriminator = PatchDiscriminator(PAPER_DISCRIMINATOR)
    assert receptive_field(discriminator.layers) == 70
    with torch.no_grad():
        assert discriminator(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(
    ("downs", "scale", "field"), [(1, 1, 16), (2, 1, 34), (3, 1, 70), (4, 1, 142), (3, 0.5, 140), (2, 0.25, 136)]
)
def test_receptive_field_is_what_the_gradient_reaches(downs: int, scale: float, field: int) -> None:
    # pix2pix, section 6.1.2, gives 16, 34(-ish), 70 and more for these depths; the gradient decides.
    discriminator = PatchDiscriminator(DiscriminatorParams(filters=1, downs=downs, scale=scale), norm=False)
    for weight in discriminator.parameters():
        nn.init.constant_(weight, 0.1)
    photo = torch.ones(1, 3, 256, 256, requires_grad=True)
    scores = discriminator(photo)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert (
        (photo.grad[0, 0].abs().sum(dim=0) > 0).sum().item() == field == receptive_field(discriminator.layers) / scale
    )


def test_a_skip_connection_carries_detail_past_the_bottleneck() -> None:
    generator = small_generator(dropout=0).eval()
    with torch.no_grad():
        for weight in generator.decoder[-1].parameters():
            weight.zero_()  # nothing comes from below the outermost level
        flat, detailed = torch.zeros(1, 1, 32, 32), torch.randn(1, 1, 32, 32)
        assert not torch.allclose(generator(flat), generator(detailed))


def test_dropout_is_in_three_decoder_blocks_and_off_in_eval_mode() -> None:
    generator = UNetGenerator(PAPER_GENERATOR)
    dropped = [any(isinstance(layer, nn.Dropout) for layer in block) for block in generator.decoder]
    assert dropped == [True, True, True, False, False, False, False]
    small, photo = small_generator(downs=5), torch.randn(2, 1, 32, 32)
    assert not torch.equal(small(photo), small(photo))
    small.eval()
    assert torch.equal(small(photo), small(photo))


def test_a_photos_result_does_not_depend_on_its_batch() -> None:
    generator, photos = small_generator().eval(), torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(generator(photos)[1:2], generator(photos[1:2]))


def test_weights_start_from_pix2pixs_normal_distribution() -> None:
    torch.manual_seed(0)
    weight = UNetGenerator(PAPER_GENERATOR).encoder[4][1].weight
    assert weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert weight.std().item() == pytest.approx(0.02, rel=1e-2)


def test_a_critic_without_norm_does_not_mix_photos() -> None:
    photos = torch.randn(4, 3, 32, 32)
    other = torch.cat([photos[:1], torch.randn(3, 3, 32, 32)])
    for norm, mixes in [(False, False), (True, True)]:
        torch.manual_seed(0)
        critic = PatchDiscriminator(DiscriminatorParams(filters=4, downs=2, scale=1), norm=norm)
        assert torch.allclose(critic(photos)[0], critic(other)[0], atol=1e-6) is not mixes


def test_ab_stay_in_range_and_scores_do_not() -> None:
    generator = small_generator()
    with torch.no_grad():
        for weight in generator.parameters():
            weight.mul_(50)
        ab = generator(torch.randn(2, 1, 32, 32))
        critic = PatchDiscriminator(DiscriminatorParams(filters=4, downs=2, scale=1))
        for weight in critic.parameters():
            weight.mul_(50)
        scores = critic(torch.randn(2, 3, 32, 32))
    assert ab.abs().max() <= 1
    assert scores.abs().max() > 1
