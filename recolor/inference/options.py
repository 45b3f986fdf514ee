"""How photos and films are coloured and written. Without torch, so that `recolor --help` shows these defaults at once."""

from dataclasses import dataclass
from typing import Literal

MAX_SIZE = 4096  # larger ones need all the memory that there is

Upsampling = Literal["guided", "bicubic"]
Codec = Literal["h264", "h265", "av1", "vp9", "ffv1"]


@dataclass(frozen=True)
class Options:
    """See `Colorizer` and `formats.save`. `side_by_side`: the photo left of the result.

    `quality`: 1 to 100, by default the format's own. Of films: `codec`; `steady`, 0 to 1; `start` and `end`, in
    seconds from the first frame on.
    """

    size: int | None = None
    upsampling: Upsampling = "guided"
    strength: float = 1.0
    side_by_side: bool = False
    quality: int | None = None
    steady: float = 0.9  # an average over about ten frames
    codec: Codec = "h264"
    start: float | None = None
    end: float | None = None


DEFAULT = Options()
