"""Compares the settings of the trainings with the number of photos before any model is removed."""

from recolor.core.errors import UserError
from stages import Dataset, paths, read_params, run


def main(dataset: Dataset) -> None:
    """Checks that data/cache/DATASET has enough photos for a batch and a generator step; writes data/checked/batch-DATASET.txt.

    The number of photos is known only after preprocess, and DVC removes a model before its training stage could refuse.
    """
    from pydantic import PositiveInt

    from recolor.core.storage import atomic_file
    from recolor.dataset.shards import read_table
    from recolor.models.objectives import ADVERSARIAL

    params = read_params(dataset)
    size, epochs = params.section("train.batch_size", PositiveInt), params.section("train.epochs", PositiveInt)
    photos = int((read_table(paths.cache(dataset) / "manifest.csv", ["split"])["split"] == "train").sum())
    where = f"{paths.PARAMS}: {params.recipe}"
    if size > photos:
        raise UserError(f"{where}.train.batch_size: got {size}; must be at most {photos}, the photos to train on")
    batches = epochs * (photos // size)
    for model, section in ADVERSARIAL.items():
        n_critic = params.section(model, section).n_critic
        if batches < n_critic:
            raise UserError(
                f"{where}.{model}.n_critic: got {n_critic}, but {epochs} epochs of {photos} photos in batches of {size} have "
                f"{batches} batches, so the generator would never be trained; lower n_critic or train.batch_size, "
                "or raise train.epochs"
            )
    with atomic_file(paths.batch_checked(dataset), "a line of text") as path:
        path.write_text("the dataset holds a batch\n")


if __name__ == "__main__":
    run(main)
