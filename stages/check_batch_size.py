"""Stage: compares the batch with the number of photos before any training."""

import typer

from recolor.core.errors import UserError
from stages import paths, read_params, run


def main(dataset: str = typer.Argument(help="A dataset of params.yaml, such as sample or coco.")) -> None:
    """Checks that data/cache/DATASET holds enough photos for train.batch_size; writes data/checked/batch-DATASET.txt.

    The number of photos is known only after preprocess, and DVC removes a model before its training stage could refuse. The
    output is always the same, so no other stage runs because of it.
    """
    from pydantic import PositiveInt

    from recolor.core.storage import atomic_file, check_disk_space
    from recolor.dataset.shards import read_table

    params = read_params(dataset)
    size = params.value("train.batch_size", PositiveInt)
    photos = int((read_table(paths.cache(dataset) / "manifest.csv")["split"] == "train").sum())
    if size > photos:
        name = f"{params.recipe}.train.batch_size"
        raise UserError(f"{paths.PARAMS}: {name}: got {size}; takes at most the {photos} photos to train on")
    output = paths.batch_checked(dataset)
    with check_disk_space("a line of text", output.parent), atomic_file(output) as path:
        path.write_text("the dataset holds a batch\n")


if __name__ == "__main__":
    run(main)
