"""recolor: a grey photo becomes a colour photo, with pix2pix's GAN or a Wasserstein GAN.

A photo goes one way through the house: `sources` (where it comes from), `photos` (how one file is decoded), `cache` (Lab
tensors), `networks`, `objectives` and `training` (the models), `inference` (the models at work), `metrics` and `evaluation`
(scores), `figures` and `report` (what people read). Importing this package imports nothing else: torch takes seconds.
"""
