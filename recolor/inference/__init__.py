"""A trained generator at work on photos of any size. May import models, images and core."""

from recolor.inference.colorizer import Colorizer

__all__ = ["Colorizer"]
