"""recolor: colours grey photos with pix2pix's GAN or a Wasserstein GAN.

docs/architecture.md describes the packages. This module imports nothing, because importing torch needs seconds.
"""
