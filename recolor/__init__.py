"""recolor: a grey photo becomes a colour photo, with pix2pix's GAN or a Wasserstein GAN.

The packages follow the stages of the pipeline: `sources`, `preprocessing`, `dataset`, `training`, `evaluation`, `reporting`.
Below them are `core`, `images`, `models` and `runtime`, above them `inference` and `app`. Importing this package imports
nothing else: torch takes seconds.
"""
