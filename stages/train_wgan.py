"""Trains the WGAN of a dataset."""

import typer

from stages import read_params, run


def main(dataset: str = typer.Argument(help="A dataset of params.yaml, such as sample or coco.")) -> None:
    """Trains the WGAN: data/cache/DATASET into data/models/DATASET/wgan.

    The critic (PatchGAN) learns the Wasserstein distance between real and coloured photos, the generator (U-Net) to shorten it,
    with L1 as for the GAN. wgan.constraint says how the critic is kept in bounds. Interrupted, it goes on from its newest
    checkpoint when it is run again.
    """
    from recolor.models.objectives import WGANParams
    from stages.training import train_model

    params = read_params(dataset)
    train_model("wgan", params, params.section("wgan", WGANParams))


if __name__ == "__main__":
    run(main)
