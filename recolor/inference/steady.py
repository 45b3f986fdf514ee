"""The same colours from frame to frame: predicted ab of past frames is carried along the motion and averaged with the new one.

Motion is dense optical flow (DIS; Kroeger et al. 2016) on the network's small L. Each pixel has an age: how many
frames its colour has been carried. Its new colour is the mean of the carried one, with weight `age`, and the predicted one, so
what has just become visible has its own colour at once. Where the carried L differs from the frame's, colour is not carried; if
it differs nearly everywhere, the film has a cut, and nothing is carried.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recolor.core.errors import UserError
from recolor.images.color import L_CENTRE

Map = NDArray[np.float32]

MISFIT = 6.0  # units of L: with as much difference, after smoothing, a carried colour counts 1 / e (docs/films.md)
CUT = 0.35  # of the pixels: where fewer fit, it is a cut
SMALLEST = 12  # pixels of the longer side: OpenCV finds no motion in smaller pictures


class State(NamedTuple):
    """What is carried to the next frame: L as 8 bits (h, w), ab (h, w, 2) and age (h, w)."""

    lightness: NDArray[np.uint8]
    ab: Map
    age: Map


class Steady:
    """Steadies predictions (3, h, w), normalised Lab, in the order of the film; those with sides below 12 pixels stay.

    `amount`: 0 leaves each as it is, 1 averages over all that is known. Raises UserError for another, and without OpenCV.
    """

    def __init__(self, amount: float, state: State | None = None) -> None:
        if not 0 <= amount <= 1:
            raise UserError(f"steady: got {amount!r}; must be a number from 0 (each frame on its own) to 1")
        self.oldest = amount / (1 - amount) if amount < 1 else np.inf
        self.state = state
        self._flow: Any = None
        if amount:
            try:
                import cv2
            except ImportError:
                raise UserError("OpenCV is not installed: pip install 'recolor[video]'") from None
            # Sparser patches and fewer steps than the preset's 3, 25 and 5: half of the time, colours as steady.
            self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            self._flow.setPatchStride(5)
            self._flow.setGradientDescentIterations(12)
            self._flow.setVariationalRefinementIterations(2)

    def __call__(self, predicted: Tensor) -> Tensor:
        if self._flow is None or max(predicted.shape[1:]) < SMALLEST:
            return predicted
        lightness = ((predicted[0] + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        ab = np.ascontiguousarray(predicted[1:].permute(1, 2, 0).float().cpu().numpy())
        age = np.zeros(lightness.shape, np.float32)
        if self.state is not None and self.state.lightness.shape == lightness.shape:
            ab, age = self._averaged(self.state, lightness, ab)
        self.state = State(lightness, ab, np.minimum(age + 1, self.oldest).astype(np.float32))
        return torch.cat([predicted[:1], torch.from_numpy(ab).permute(2, 0, 1).to(predicted)])

    def _averaged(self, before: State, lightness: NDArray[np.uint8], ab: Map) -> tuple[Map, Map]:
        """`ab` averaged with the colours carried to this frame, and how many frames those count for; 0 after a cut."""
        import cv2

        height, width = lightness.shape
        flow = self._flow.calc(lightness, before.lightness, None)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        x, y = x + flow[..., 0], y + flow[..., 1]
        carried = cv2.merge([before.ab, before.age, before.lightness.astype(np.float32)])
        moved = cv2.remap(carried, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        misfit = cv2.blur(np.abs(moved[..., 3] - lightness), (3, 3)) * (L_CENTRE * 2 / 255)
        fit = np.exp(-((misfit / MISFIT) ** 2))
        fit[(x < -1) | (x > width) | (y < -1) | (y > height)] = 0
        if (fit > 0.5).mean() < CUT:
            return ab, np.zeros_like(fit)
        age = moved[..., 2] * fit
        return cv2.blendLinear(ab, moved[..., :2], np.ones_like(age), age), age
