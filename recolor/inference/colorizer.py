"""`Colorizer.load(folder)(photo)` colours photos of any size.

The network predicts ab of a photo resized to the square that it was trained on; `upsampling` brings ab to the photo's size,
where it is combined with the photo's own L, so that no detail is lost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recolor.core.devices import find_device
from recolor.core.errors import UserError
from recolor.core.iterators import batches, strip_threads
from recolor.images.color import into_gamut, lab_to_rgb, rgb_to_lightness
from recolor.images.decoding import to_srgb
from recolor.images.opening import PhotoError, translate_errors
from recolor.inference.options import DEFAULT, MAX_SIZE, Options, Upsampling
from recolor.inference.steady import Steady
from recolor.inference.upsampling import Upsampler
from recolor.models.folder import default_shipped_model, load_generator, read_card
from recolor.models.fusing import for_inference
from recolor.models.layers import Generator

Photo = TypeVar("Photo", Image.Image, NDArray[np.uint8], Image.Image | NDArray[np.uint8])

SIZE = 256  # of models whose card has no training size
BATCH = 8  # photos of SIZE x SIZE in one pass through the network: the default U-Net takes 30 MB for each
CHANNELS = (1, 3, 4)  # of an array's last side, where it is not the width
STRIP = 2**17  # pixels painted at a time by each core: 15 MB
TILE = 2**20  # by a GPU
SIDE = 2**13  # columns painted at a time, at most: at size 256 what they are interpolated from takes 42 MB


class Colorizer:
    """Colours photos with one model on one device. `card` is the model's `model.json`; `size`, what it was trained on.

    `colorizer(photo)` returns the type that it gets, at full resolution; the photo's own colours have no influence:

    - a PIL image of any mode: the right way up and in sRGB, mode RGB, or RGBA for one with transparency (the
      network gets it over white);
    - a NumPy array of uint8, (H, W) or (H, W, 1) grey or (H, W, 3) RGB: (H, W, 3); or (H, W, 4) RGBA: (H, W, 4);
    - a batch of arrays of one of these shapes, (B, ...): a batch. An array whose last side is 1, 3 or 4 has colours there.
      (3, H, W) is refused, since it may be one photo as well as three: three grey ones are (3, H, W, 1);
    - a list or tuple of any of the first two: a list.

    L stays the photo's own, within half a unit of 100: `into_gamut` and the rounding to 8 bits change it by so much.
    Photos with more than 8 bits are reduced to 8 first. Raises UserError for anything else, for a `size` that the network
    cannot take, and for a negative `strength`.
    """

    def __init__(self, generator: Generator, card: dict[str, Any] | None = None) -> None:
        self.generator = generator.eval()
        self.card = card or {}
        self.device = next(generator.parameters()).device
        self.multiple = generator.params.multiple
        self.size = int(self.card.get("size", max(SIZE, self.multiple)))

    @classmethod
    def load(cls, directory: str | Path | None = None, device: str | torch.device = "auto") -> "Colorizer":
        """The model of a folder, by default the package's, on `device`: auto, or torch's name. Raises ModelError, UserError."""
        folder = default_shipped_model() if directory is None else Path(directory)
        return cls(for_inference(load_generator(folder, find_device(device))), read_card(folder))

    @overload
    def __call__(
        self, photos: Photo, *, size: int | None = ..., upsampling: Upsampling = ..., strength: float = ...
    ) -> Photo: ...

    @overload
    def __call__(
        self, photos: Sequence[Photo], *, size: int | None = ..., upsampling: Upsampling = ..., strength: float = ...
    ) -> list[Photo]: ...

    def __call__(
        self, photos: Any, *, size: int | None = None, upsampling: Upsampling = "guided", strength: float = 1.0
    ) -> Any:
        """`photos` in colour. `size`: what the network sees, if not what it was trained on; `strength`: a factor of ab."""
        coloured = partial(self._coloured, options=Options(size, upsampling, strength), steady=Steady(0))
        if isinstance(photos, np.ndarray) and _is_batch(photos):
            channels = 4 if photos.shape[3:] == (4,) else 3
            return np.array(list(coloured(photos)), np.uint8).reshape(*photos.shape[:3], channels)
        if isinstance(photos, list | tuple):
            return list(coloured(photos))
        return next(coloured([photos]))

    def video(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        size: int | None = None,
        upsampling: Upsampling = "guided",
        strength: float = 1.0,
        steady: float = DEFAULT.steady,
    ) -> Iterator[NDArray[np.uint8]]:
        """The frames of a film in colour, arrays of one photo each. `steady`, 0 to 1: how much of past colours stays."""
        coloured = partial(self._coloured, options=Options(size, upsampling, strength), steady=Steady(steady))
        return chain.from_iterable(map(coloured, batches(frames, BATCH)))

    def _coloured(self, photos: Any, options: Options, steady: Steady) -> Iterator[Any]:
        """Each of a sequence of photos in colour, in its own type; `steady` gets their predictions, one after the other."""
        with translate_errors():
            images = [to_srgb(_image(photo), keep_alpha=True) for photo in photos]
        for photo, image, predicted in zip(photos, images, self.predict(images, options.size), strict=True):
            self.paint(image, steady(predicted), options)
            yield np.array(image) if isinstance(photo, np.ndarray) else image

    @torch.inference_mode()
    def predict(self, photos: Sequence[Image.Image], size: int | None = None) -> Tensor:
        """(B, 3, size, size) normalised Lab of B images as `to_srgb` gives them: the L that the network sees, its ab."""
        size = self.size if size is None else size
        if (
            not isinstance(size, Integral)
            or isinstance(size, bool)
            or not 1 <= size <= MAX_SIZE
            or size % self.multiple
        ):
            raise UserError(
                f"size: got {size!r}; must be a multiple of {self.multiple} up to {MAX_SIZE} for this model"
            )
        size = int(size)  # torch refuses NumPy's integers
        if not photos:
            return torch.empty(0, 3, size, size)
        batch = max(1, BATCH * SIZE**2 // size**2)
        small = [to_srgb(photo.resize((size, size), Image.Resampling.BICUBIC)) for photo in photos]
        lightness = torch.stack([rgb_to_lightness(torch.from_numpy(np.array(picture))) for picture in small])
        lab = torch.cat(
            [torch.cat([part, self.generator(part)], dim=1) for part in lightness.to(self.device).split(batch)]
        )
        if not lab.isfinite().all():
            raise UserError("the model's colours are not numbers (NaN): its weights cannot be used")
        return lab

    def paint(
        self,
        photo: Image.Image,
        predicted: Tensor,
        options: Options = DEFAULT,
        start: int = 0,
        progress: Callable[[float], None] = lambda done: None,
    ) -> None:
        """Paints `photo`, as `to_srgb` gives it, in place: its L under the colours of its own row of `predict`.

        The photo is what lies right of column `start`; what lies left of it stays as it is. `progress` is called with the
        share that is done, after each tile. On a CPU all cores work, each on a strip of its own.
        """
        strength = options.strength
        if not isinstance(strength, Real) or isinstance(strength, bool) or not 0 <= strength < float("inf"):
            raise UserError(f"strength: got {strength!r}; must be 0 (grey) or more; 1 is as predicted")
        width, height = photo.width - start, photo.height
        upsampler = Upsampler(predicted.to(self.device), width, height, options.upsampling)
        on_cpu = self.device.type == "cpu"
        columns = min(width, SIDE)
        rows = max(1, (STRIP if on_cpu else TILE) // columns)

        @torch.inference_mode()
        def paint_tile(left: int, maps: Tensor, top: int) -> float:
            box = start + left, top, start + left + maps.shape[2], min(top + rows, height)
            tile = np.array(photo.crop(box))
            lightness = rgb_to_lightness(torch.from_numpy(tile).to(self.device))
            lab = torch.cat([lightness, strength * upsampler.tile(maps, top, lightness)])[None]
            rgb = lab_to_rgb(into_gamut(lab))[0].permute(1, 2, 0).cpu().numpy()
            if tile.shape[2] > 3:
                rgb = np.concatenate([rgb, tile[..., 3:]], axis=-1)
            photo.paste(Image.fromarray(rgb), box[:2])
            return (left * height + (box[3] * maps.shape[2])) / (width * height)

        photo.load()  # here and not in several threads at once
        for left in range(0, width, columns):
            with torch.inference_mode():
                maps = upsampler.columns(left, min(columns, width - left))
            several = on_cpu and rows < height
            for done in (strip_threads().map if several else map)(
                partial(paint_tile, left, maps), range(0, height, rows)
            ):
                progress(done)


def _is_batch(array: NDArray[Any]) -> bool:
    """Whether `array` is a batch of photos and not one photo. Raises PhotoError for what may be either."""
    sides = array.shape
    if array.ndim == 3 and sides[2] not in CHANNELS and (sides[2] == 2 or sides[0] == 3):
        doubt = "CHW" if sides[0] == 3 else "two channels"
        raise PhotoError(f"an array of {sides} may be {doubt}: must be (H, W, 3) or, for grey photos, (B, H, W, 1)")
    return array.ndim - (array.ndim > 2 and sides[-1] in CHANNELS) == 3


def _image(photo: Any) -> Image.Image:
    is_array = isinstance(photo, np.ndarray)
    if not isinstance(photo, Image.Image) and not (
        is_array and photo.dtype == np.uint8 and (photo.ndim == 2 or (photo.ndim == 3 and photo.shape[2] in CHANNELS))
    ):
        kind = f"{photo.dtype} {photo.shape}" if is_array else type(photo).__name__
        shapes = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last"
        raise PhotoError(f"a photo is a PIL image or an array of uint8, {shapes}; got {kind}")
    if 0 in (size := photo.shape if is_array else photo.size):
        raise PhotoError(f"a photo without pixels: {size}")
    if not is_array:
        return photo
    return Image.fromarray(photo[..., 0] if photo.shape[2:] == (1,) else photo)
