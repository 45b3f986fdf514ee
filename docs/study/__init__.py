"""The comparison of docs/study.md, GAN against WGAN, from its grid to its tables and figures: `python -m docs.study`."""
