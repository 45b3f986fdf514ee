"""What goes in comes out coloured: every kind of photo, its own lightness, whatever else is in the batch."""

import io
from pathlib import Path

import battery
import numpy as np
import pytest
import torch
from coloured import lightness
from PIL import Image
from skimage import data

from recolor.core.errors import UserError
from recolor.images.color import rgb_to_lab
from recolor.inference import colorizer as inference
from recolor.inference.colorizer import Colorizer


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((150, 110))


def chroma(image: Image.Image) -> np.ndarray:
    return np.hypot(*rgb_to_lab(np.asarray(image.convert("RGB")))[1:]) * 110


@pytest.mark.parametrize("upsampling", ["guided", "bicubic"])
@pytest.mark.parametrize("strength", [1.0, 4.0])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lightness_stays_and_colour_comes(
    colorizer: Colorizer, photo: Image.Image, mode: str, strength: float, upsampling: str
) -> None:
    result = colorizer(photo.convert(mode), strength=strength, upsampling=upsampling)
    assert np.abs(lightness(result) - lightness(photo.convert(mode))).max() < 0.5
    assert chroma(result).mean() > 10


def test_white_is_hardly_tinted(colorizer: Colorizer) -> None:
    """White has no room for colour: what there is of it is the lightness that `into_gamut` gives away."""
    result = colorizer(np.full((40, 40), 255, np.uint8), strength=4.0)
    assert result.min() > 240


def test_the_photos_own_colours_do_not_matter(colorizer: Colorizer, photo: Image.Image) -> None:
    grey = Image.fromarray(np.array(colorizer(photo, strength=0)))
    assert (np.ptp(np.asarray(grey).astype(int), axis=2) <= 1).all()
    assert np.abs(np.asarray(colorizer(photo)).astype(int) - colorizer(grey)).mean() < 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "La"])
def test_an_image_of_any_mode_gives_an_image_and_is_left_alone(
    colorizer: Colorizer, photo: Image.Image, mode: str
) -> None:
    via = {"I;16": "L", "F": "L", "La": "LA"}.get(mode, photo.mode)
    image = photo.convert(via).convert(mode)
    before = image.tobytes()
    result = colorizer(image)
    assert (result.size, result.mode) == (photo.size, "RGBA" if "a" in mode.lower() else "RGB")
    assert (image.mode, image.tobytes()) == (mode, before)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_mode_without_a_range_is_as_bright_as_its_values(colorizer: Colorizer, photo: Image.Image, mode: str) -> None:
    grey = photo.convert("L")
    np.testing.assert_array_equal(np.asarray(colorizer(grey.convert(mode))), np.asarray(colorizer(grey)))


def test_transparency_stays(colorizer: Colorizer, photo: Image.Image) -> None:
    opacity = np.random.default_rng(0).integers(0, 256, (photo.height, photo.width), dtype=np.uint8)
    image = photo.copy()
    image.putalpha(Image.fromarray(opacity))
    result = colorizer(image)
    np.testing.assert_array_equal(np.asarray(result)[..., 3], opacity)
    assert np.abs(lightness(result) - lightness(photo)).max() < 0.5


def test_a_turned_photo_comes_upright(colorizer: Colorizer, photo: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        np.testing.assert_array_equal(np.asarray(colorizer(turned)), np.asarray(colorizer(photo)))


def test_arrays_and_lists_give_like_for_like(colorizer: Colorizer, photo: Image.Image) -> None:
    colour = np.asarray(photo)
    grey = np.asarray(photo.convert("L"))
    expected, expected_grey = np.asarray(colorizer(photo)), np.asarray(colorizer(photo.convert("L")))
    np.testing.assert_array_equal(colorizer(colour), expected)
    np.testing.assert_array_equal(colorizer(grey), expected_grey)
    assert colorizer(np.stack([colour] * 3)).shape == (3, *colour.shape)
    batch = colorizer(np.stack([grey, grey[::-1]]))
    assert batch.shape == (2, *colour.shape)
    np.testing.assert_allclose(batch[0].astype(int), expected_grey, atol=1)
    np.testing.assert_array_equal(colorizer(grey[..., None]), expected_grey)
    np.testing.assert_array_equal(colorizer(grey[None, ..., None])[0], expected_grey)
    assert colorizer(np.stack([grey] * 3)[..., None]).shape == (3, *colour.shape)
    see_through = np.dstack([colour, grey])
    assert colorizer(see_through).shape == see_through.shape
    assert colorizer(see_through[None]).shape == (1, *see_through.shape)
    image, array = several = colorizer((photo, grey[:50]))
    assert type(several) is list
    assert isinstance(image, Image.Image)
    assert array.shape == (50, 150, 3)
    assert colorizer([]) == []
    assert colorizer(np.zeros((0, 8, 8), np.uint8)).shape == (0, 8, 8, 3)
    assert colorizer(np.zeros((0, 8, 8, 4), np.uint8)).shape == (0, 8, 8, 4)


def test_a_photos_result_does_not_depend_on_its_batch(colorizer: Colorizer, photo: Image.Image) -> None:
    others = [Image.fromarray(np.roll(np.asarray(photo), 10 * shift, axis=1)) for shift in range(1, 12)]
    together = np.asarray(colorizer([*others, photo])[-1]).astype(int)
    np.testing.assert_allclose(together, np.asarray(colorizer(photo)), atol=1)


def test_tiles_leave_no_seam(colorizer: Colorizer, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.asarray(colorizer(photo)).astype(int)
    monkeypatch.setattr(inference, "STRIP", 1000)
    monkeypatch.setattr(inference, "SIDE", 40)
    np.testing.assert_allclose(np.asarray(colorizer(photo)), whole, atol=1)


def test_the_network_sees_what_it_was_trained_on(colorizer: Colorizer, photo: Image.Image) -> None:
    seen = []
    with colorizer.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
        colorizer(photo)
        colorizer(photo, size=np.int64(64))
    as_trained = rgb_to_lab(np.asarray(photo.resize((32, 32), Image.Resampling.BICUBIC)))[:1]
    np.testing.assert_allclose(seen[0][0], as_trained, atol=2e-6)
    assert seen[1].shape == (1, 1, 64, 64)


def test_dropout_is_off(tiny_model: Path, photo: Image.Image) -> None:
    generator = Colorizer.load(tiny_model, "cpu").generator.train()
    colorizer = Colorizer(generator)
    np.testing.assert_array_equal(np.asarray(colorizer(photo)), np.asarray(colorizer(photo)))


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (np.zeros((8, 8)), {}, "got float64 \\(8, 8\\)"),
        (np.zeros(8, np.uint8), {}, "got uint8 \\(8,\\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), {}, "got uint8 \\(2, 8, 8, 5\\)"),
        (np.zeros((0, 8), np.uint8), {}, "without pixels"),
        (np.zeros((3, 8, 8), np.uint8), {}, "\\(3, 8, 8\\) may be CHW"),
        (np.zeros((8, 8, 2), np.uint8), {}, "\\(8, 8, 2\\) may be two channels"),
        (np.zeros((2, 3, 8, 8), np.uint8), {}, "channels last; got uint8 \\(2, 3, 8, 8\\)"),
        (np.uint8(3) + np.zeros((), np.uint8), {}, "got uint8"),
        (Image.new("RGB", (0, 5)), {}, "without pixels: \\(0, 5\\)"),
        (Image.open(io.BytesIO(battery.encoded(battery.picture(0, (300, 200)))[:3000])), {}, "cut short"),
        ("photo.jpg", {}, "got str"),
        (np.zeros((8, 8), np.uint8), {"size": 40}, "size: got 40; must be a multiple of 16"),
        (np.zeros((8, 8), np.uint8), {"size": 0}, "size: got 0"),
        (np.zeros((8, 8), np.uint8), {"size": 2**20}, "size: got 1048576"),
        (np.zeros((8, 8), np.uint8), {"strength": -1.0}, "strength: got -1"),
        (np.zeros((8, 8), np.uint8), {"strength": float("nan")}, "strength: got nan"),
        (np.zeros((8, 8), np.uint8), {"strength": None}, "strength: got None"),
        (np.zeros((8, 8), np.uint8), {"strength": "1"}, "strength: got '1'"),
        (np.zeros((8, 8), np.uint8), {"size": "32"}, "size: got '32'"),
        (np.zeros((8, 8), np.uint8), {"size": 32.0}, "size: got 32.0"),
        (np.zeros((8, 8), np.uint8), {"upsampling": "nearest"}, "upsampling: got nearest"),
    ],
)
def test_what_cannot_be_coloured_is_reported(colorizer: Colorizer, given: object, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        colorizer(given, **settings)


def test_a_model_of_nothing_but_nan_paints_no_black_photos(tiny_model: Path, photo: Image.Image) -> None:
    colorizer = Colorizer.load(tiny_model, "cpu")
    colorizer.generator.out[1].bias.data.fill_(torch.nan)
    with pytest.raises(UserError, match="not numbers"):
        colorizer(photo)


def test_a_device_that_is_not_here_and_a_folder_without_a_model_are_errors(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("tpu", "cuda:99", "", None, 3.5):
        with pytest.raises(UserError, match=r"^device: "):
            Colorizer.load(tiny_model, name)
    with pytest.raises(UserError, match=str(tmp_path)):
        Colorizer.load(tmp_path)


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_devices_go_by_torchs_names(tiny_model: Path, device: object) -> None:
    assert Colorizer.load(tiny_model, device).device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda"), torch.device("cuda", 0)])
def test_a_gpu_gives_the_colours_of_the_cpu(tiny_model: Path, photo: Image.Image, device: object) -> None:
    expected = np.asarray(Colorizer.load(tiny_model, "cpu")(photo)).astype(int)
    difference = np.abs(np.asarray(Colorizer.load(tiny_model, device)(photo)).astype(int) - expected)
    assert difference.mean() < 1
