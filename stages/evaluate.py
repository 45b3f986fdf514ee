"""Scores the models of a dataset, and doing nothing, on every photo."""

import typer

from recolor.core.params import Seed
from stages import at_end, paths, read_params, run
from stages.launching import launch

SHOWN = ["split", "model", "photos", "fid", "fid64", "kid", "is", "psnr", "ssim", "colourfulness"]


def main(dataset: str = typer.Argument(help="A dataset of params.yaml, such as sample or coco.")) -> None:
    """Measures what came out: data/models/DATASET on both splits of data/cache/DATASET, into reports/metrics/DATASET.

    Every model, and `grey`, which adds no colour at all, is scored on the 8-bit pictures: PSNR, SSIM and colourfulness of each
    photo, FID, KID and the Inception score of all. The last three take Inception's weights, which are downloaded, or found
    in evaluate.inception_weights.
    """
    from accelerate import PartialState

    from recolor.evaluation.evaluate import EvaluateParams, evaluate
    from recolor.runtime.devices import RuntimeParams

    params = read_params(dataset)
    models = {name: paths.model(dataset, name) for name in paths.MODELS}
    settings = params.section("evaluate", EvaluateParams)
    runtime = params.section("runtime", RuntimeParams)
    launch(runtime, "evaluate", dataset)
    if settings.inception_weights is not None:
        settings = settings.model_copy(
            update={"inception_weights": paths.HOME / settings.inception_weights.expanduser()}
        )
    scores = evaluate(
        paths.cache(dataset), models, paths.metrics(dataset), settings, runtime, params.value("data.seed", Seed)
    )
    if PartialState().is_main_process:
        typer.echo(scores[SHOWN].to_string(index=False, na_rep="-", float_format="{:.4g}".format))
        at_end(lambda: _forget_training(dataset))
    PartialState().destroy_process_group()


def _forget_training(dataset: str) -> None:
    """Removes the checkpoints of the models that were scored: DVC has recorded those, or it would not have come this far."""
    from recolor.models.checkpoint import Checkpoints, weights_sha256

    for name in paths.MODELS:
        digest = weights_sha256(paths.model(dataset, name))
        for folder in paths.checkpoints(dataset, name):
            Checkpoints(folder).remove_finished(digest)


if __name__ == "__main__":
    run(main)
