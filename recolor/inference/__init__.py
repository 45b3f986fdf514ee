"""Colours photos and folders of photos with a trained model. May import models, images and core."""

from recolor.inference.colorizer import Colorizer

__all__ = ["Colorizer"]
