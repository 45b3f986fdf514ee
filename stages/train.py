"""Trains a model of a dataset."""

from typing import Annotated

import typer

from stages import Dataset, read_params, run


def main(
    dataset: Dataset,
    model: Annotated[
        str, typer.Argument(help="l1 (pretraining), or an adversarial model by the name of its section, such as gan.")
    ],
) -> None:
    """Trains a model: data/cache/DATASET into data/models/DATASET/MODEL.

    `l1` trains the generator with L1 alone, for pretrain.epochs. The adversarial models start from its weights and add a critic
    (PatchGAN), by the section of params.yaml that has their name. An interrupted training continues from its newest checkpoint.
    """
    from stages.training import train_model

    train_model(model, dataset, read_params(dataset))


if __name__ == "__main__":
    run(main)
