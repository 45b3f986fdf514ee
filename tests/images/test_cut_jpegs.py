"""JPEGs that lack their end, of which there may be enough to see."""

import re

import battery
import numpy as np
import pytest
from PIL import Image

from recolor.images.decoding import decode, to_srgb
from recolor.images.opening import CUT_SHORT, CutShortError, PhotoError, opened


def difference(image: Image.Image, expected: Image.Image) -> int:
    return int(np.abs(np.asarray(image).astype(int) - np.asarray(expected)).max())


def decode_damaged(data: bytes) -> Image.Image:
    with opened(data) as image:
        return to_srgb(image, damaged=True)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
@pytest.mark.parametrize("missing", [b"\xd9", b"\xff\xd9"])
def test_a_jpeg_without_its_end_marker_is_complete(missing: bytes, options: dict[str, object]) -> None:
    data = battery.encoded(battery.picture(1, (200, 150)), **options)
    result = decode(data.removesuffix(missing))
    assert result.info.pop("notes")
    assert result == decode(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_jpeg_is_decoded_only_if_damage_is_allowed(share: float, options: dict[str, object]) -> None:
    data = battery.encoded(battery.picture(1, (320, 240)), **options)
    cut = data[: round(len(data) * share)]
    with pytest.raises(PhotoError, match=CUT_SHORT):
        decode(cut)
    result = decode_damaged(cut)
    assert result.info["notes"]
    if not options:  # a progressive JPEG is blurred, a baseline one ends somewhere
        top = (0, 0, 320, 16)
        assert difference(result.crop(top), decode(data).crop(top)) == 0


@pytest.mark.parametrize("marker", [b"\xff\xc4", b"\xff\xda"], ids=["tables", "scan"])
def test_a_progressive_jpeg_cut_within_a_header_keeps_the_scans_before_it(marker: bytes) -> None:
    data = battery.encoded(battery.picture(1, (320, 240)), progressive=True)
    cut = data[: data.rindex(marker) + 5]
    with pytest.raises(CutShortError):
        decode(cut)
    result = decode_damaged(cut)
    assert result.info["notes"]
    assert difference(result, decode(data)) < 3


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}], ids=str)
def test_a_progressive_jpeg_cut_between_two_scans_is_not_complete(options: dict[str, object]) -> None:
    data = battery.encoded(battery.picture(1, (320, 240)), progressive=True, **options)
    markers = [found.start() for found in re.finditer(rb"\xff[\xc4\xda]", data)]
    for place in markers[markers.index(data.index(b"\xff\xda")) + 1 :]:
        with pytest.raises(CutShortError):
            decode(data[:place])
        assert 0 < difference(decode_damaged(data[:place]), decode(data)) < 32


def test_a_jpeg_cut_between_restart_markers_is_not_complete() -> None:
    data = battery.encoded(battery.picture(1, (320, 240)), restart_marker_rows=1)
    with pytest.raises(CutShortError):
        decode(data[: data.index(b"\xff\xd3")])


def test_damage_is_not_to_be_allowed_where_there_are_no_pixels() -> None:
    data = battery.encoded(battery.picture(1, (320, 240)))
    cut = data[: data.index(b"\xff\xda") + 4]
    for decoded in (decode, decode_damaged):
        with pytest.raises(PhotoError, match=CUT_SHORT) as refusal:
            decoded(cut)
        assert not isinstance(refusal.value, CutShortError)
