"""Turns the photos of a dataset into a cache of Lab tensors, split into train and test."""

import typer

from stages import Dataset, paths, read_params, run


def main(dataset: Dataset) -> None:
    """Writes data/cache/DATASET from the listed photos: decoded, resized to a square, split into train and test.

    Each photo is turned upright, converted to 8-bit sRGB, resized to data.size (bicubic) and stored as float16 Lab. Duplicates
    (the same bytes or pixels), grey photos (data.min_chroma) and files that cannot be decoded are listed in rejected.csv.
    """
    from recolor.dataset.shards import read_table
    from recolor.preprocessing.build import CacheParams, build
    from recolor.sources.fetch import SourceParams, root

    params = read_params(dataset)
    settings = params.section("data", CacheParams)
    source = paths.at_home(params.source(SourceParams))
    listing = read_table(paths.raw(dataset) / "listing.csv", ("path", "crop", "sha256", "group"))
    photos = root(source, paths.DOWNLOADS, dataset)
    typer.echo(f"{dataset}: {build(listing, photos, paths.cache(dataset), settings, dataset=dataset)}")


if __name__ == "__main__":
    run(main)
