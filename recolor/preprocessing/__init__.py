"""From a listing to a split cache of Lab tensors. May import core, images and dataset."""
