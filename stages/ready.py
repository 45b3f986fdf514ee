"""Looks, before any training, at what its settings ask of the cache."""

import typer

from recolor.core.errors import UserError
from stages import paths, read_params, run


def main(dataset: str = typer.Argument(help="A dataset of params.yaml, such as sample or coco.")) -> None:
    """Checks that data/cache/DATASET holds a batch of photos to train on; its answer is data/ready/DATASET.txt.

    How many photos there are is known once they have been decoded, too late for the check of params.yaml. And DVC removes a
    model before its training stage runs and could refuse. The answer is always the same, so nothing runs again because of it.
    """
    from pydantic import PositiveInt

    from recolor.core.storage import room_for, whole
    from recolor.dataset.shards import read_table

    size = read_params(dataset).value("train.batch_size", PositiveInt)
    photos = int((read_table(paths.cache(dataset) / "manifest.csv")["split"] == "train").sum())
    if size > photos:
        raise UserError(f"{paths.PARAMS}: train.batch_size: got {size}; takes at most the {photos} photos to train on")
    answer = paths.ready(dataset)
    with room_for("a line of text", answer.parent), whole(answer) as path:
        path.write_text("there is a batch to train on\n")


if __name__ == "__main__":
    run(main)
