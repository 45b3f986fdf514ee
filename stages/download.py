"""Lists the photos of a dataset, downloaded where that is needed."""

import typer

from recolor.core.params import Seed
from stages import Dataset, paths, read_params, run


def main(dataset: Dataset) -> None:
    """Lists a dataset's photos, each with its size and SHA-256, in data/raw/DATASET/listing.csv.

    \b
    sample    crops of the photos that scikit-image contains
    coco      the official archive, downloaded into data/downloads and unpacked
    imagenet  your own copy, a folder of class folders or a tar of it
    folder    any folder of photos, neither copied nor changed

    A broken download resumes when this is run again. Later stages read the photos that are listed: run this again when some
    of yours were added, removed or changed.
    """
    from recolor.images.opening import is_photo
    from recolor.sources.fetch import SourceParams, fetch
    from recolor.sources.listing import write_listing

    params = read_params(dataset)
    source, seed = paths.at_home(params.source(SourceParams)), params.section("data.seed", Seed)
    listing = fetch(source, seed, paths.DOWNLOADS, dataset)
    write_listing(listing, paths.raw(dataset) / "listing.csv")

    files = listing.drop_duplicates("path")
    photos = files[files["path"].map(is_photo) | (files["sha256"] != "")]
    unread = int((photos["sha256"] == "").sum())
    crops = f", {len(listing):,} crops" if len(listing) > len(files) else ""
    trouble = f", {unread:,} of them unreadable (preprocess states why)" if unread else ""
    others = f"; {len(files) - len(photos):,} other files, left out" if len(files) > len(photos) else ""
    typer.echo(f"{dataset}: {len(photos):,} photos{crops}, {photos['size'].sum() / 1e6:,.1f} MB{trouble}{others}")


if __name__ == "__main__":
    run(main)
