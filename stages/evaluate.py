"""Scores the models of a dataset, and doing nothing, on every photo."""

import typer

from recolor.core.params import Seed
from stages import Dataset, paths, read_params, run
from stages.launching import launch


def main(dataset: Dataset) -> None:
    """Scores data/models/DATASET on both splits of data/cache/DATASET, into reports/metrics/DATASET.

    PSNR, SSIM and colourfulness of each 8-bit picture; FD-Lite0, KID-Lite0, FID, KID and the Inception score of all. The last
    three need Inception's weights, which are downloaded, or read from evaluate.inception_weights.
    """
    from accelerate import PartialState

    from recolor.evaluation.evaluate import EvaluateParams, evaluate
    from recolor.evaluation.metrics import METRICS
    from recolor.evaluation.scored import scored_models
    from recolor.runtime.context import RuntimeParams

    params = read_params(dataset)
    settings = paths.at_home(params.section("evaluate", EvaluateParams), "inception_weights")
    runtime = params.section("runtime", RuntimeParams)
    launch(runtime, "evaluate", dataset)
    models = scored_models(paths.model(dataset, ""))
    seed = params.section("data.seed", Seed)
    scores = evaluate(paths.cache(dataset), models, paths.metrics(dataset), settings, runtime, seed)
    if PartialState().is_main_process:
        shown = ["split", "model", "photos", *METRICS]
        typer.echo(scores[shown].to_string(index=False, na_rep="-", float_format="{:.4g}".format))
    PartialState().destroy_process_group()


if __name__ == "__main__":
    run(main)
