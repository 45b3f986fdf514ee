"""Trains the GAN of a dataset."""

import typer

from stages import read_params, run


def main(dataset: str = typer.Argument(help="A dataset of params.yaml, such as sample or coco.")) -> None:
    """Trains the GAN: data/cache/DATASET into data/models/DATASET/gan.

    The generator (U-Net) learns to colour, the discriminator (PatchGAN) to tell its photos from real ones: binary cross-entropy
    and L1, as in pix2pix. Interrupted, it goes on from its newest checkpoint when it is run again.
    """
    from recolor.models.objectives import GANParams
    from stages.training import train_model

    params = read_params(dataset)
    train_model("gan", params, params.section("gan", GANParams))


if __name__ == "__main__":
    run(main)
