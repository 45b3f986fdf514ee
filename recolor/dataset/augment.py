"""Augmentation: what training draws anew for each photo and epoch."""

from pydantic import Field

from recolor.core.params import Number, Section


class AugmentParams(Section, frozen=True):
    """Section `augment`.

    `flip` mirrors half of the photos. `crop` is the smallest share of the sides that a random crop keeps. `tone` is the share
    of the photos whose lightness is changed.
    """

    flip: bool
    crop: Number = Field(gt=0, le=1)
    tone: Number = Field(ge=0, le=1)
