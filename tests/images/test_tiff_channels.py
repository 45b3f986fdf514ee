"""TIFFs with channels beside colour, in 8 and in 16 bits, against the picture in them."""

from typing import Any

import battery
import numpy as np
import pytest
from battery import tiff

from recolor.images.decoding import decode

COLOUR = np.asarray(battery.picture(3, (64, 48)))
GREY = np.asarray(battery.picture(3, (64, 48)).convert("L").resize((64, 48)))[..., None]
ALPHA = np.broadcast_to(np.linspace(0, 255, 64).round().astype(np.uint8)[:, None], GREY.shape)
BLACK = np.zeros_like(ALPHA)
OPAQUE = BLACK + 255

# name: channels, tags, colours without alpha, alpha
CASES: dict[str, tuple[list[np.ndarray], dict[str, Any], np.ndarray, np.ndarray]] = {
    "grey and one more": ([GREY, ALPHA], {"extrasamples": [0]}, GREY, OPAQUE),
    "grey and two more": ([GREY, ALPHA, BLACK], {"extrasamples": [0, 0]}, GREY, OPAQUE),
    "grey and alpha": ([GREY, ALPHA], {"extrasamples": [2]}, GREY, ALPHA),
    "grey multiplied by alpha": ([np.rint(GREY * (ALPHA / 255)), ALPHA], {"extrasamples": [1]}, GREY, ALPHA),
    "inverted and alpha": ([255 - GREY, ALPHA], {"photometric": "miniswhite", "extrasamples": [2]}, GREY, ALPHA),
    "colour and alpha": ([COLOUR, ALPHA], {"photometric": "rgb", "extrasamples": [2]}, COLOUR, ALPHA),
    "colour, alpha, one more": ([COLOUR, ALPHA, BLACK], {"photometric": "rgb", "extrasamples": [2, 0]}, COLOUR, ALPHA),
    "inks": ([255 - COLOUR, BLACK], {"photometric": "separated"}, COLOUR, OPAQUE),
    "inks and alpha": ([255 - COLOUR, BLACK, ALPHA], {"photometric": "separated", "extrasamples": [2]}, COLOUR, OPAQUE),
}


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_that_of_the_colours(name: str, dtype: Any, compression: str | None) -> None:
    channels, tags, colour, alpha = CASES[name]
    values = np.concatenate(channels, axis=-1).astype(dtype) * (np.iinfo(dtype).max // 255)
    tags = {"photometric": "minisblack"} | tags
    result = decode(tiff(values, planarconfig="contig", compression=compression, **tags))
    share = alpha / 255
    expected = share * colour + (1 - share) * 255  # over white
    assert np.asarray(result).mean() == pytest.approx(
        np.broadcast_to(expected, (*result.size[::-1], 3)).mean(), abs=0.6
    )
    assert np.abs(np.asarray(result) - expected).max() <= 1.5
