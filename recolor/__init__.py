"""recolor: colours grey photos with pix2pix's GAN or a Wasserstein GAN.

The packages follow the stages of the pipeline: `sources`, `preprocessing`, `dataset`, `training`, `evaluation`, `reporting`.
Below them are `core`, `images`, `models` and `runtime`, above them `inference`, `video` and `app`. This module imports nothing,
because importing torch needs seconds.
"""
