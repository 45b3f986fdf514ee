"""Colours photos and folders of photos with a trained model. May import models, images and core."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recolor.inference.colorizer import Colorizer

__all__ = ["Colorizer"]


def __getattr__(name: str) -> Any:
    """Imports `Colorizer`, and torch with it, when it is first used: `plan` and `options` need neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recolor.inference.colorizer import Colorizer

    return Colorizer
