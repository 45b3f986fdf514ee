"""Writes the report of every dataset."""

from stages import paths, read_params, run


def main() -> None:
    """Writes every dataset's scores, figures and settings into reports/.

    results.md is for people, results.json and results.csv are for programs, metrics.json for `dvc metrics diff`: the scores of
    the model that `loss` names. timings.md is a file of its own, because times differ from run to run.
    """
    from recolor.core.params import Datasets
    from recolor.models.objectives import TRAINED
    from recolor.reporting.report import write
    from recolor.reporting.results import read

    params = read_params()
    loss = params.section("loss", str)
    results = []
    for dataset in params.section("datasets", Datasets):
        own = read_params(dataset)
        data = own.section("data", dict) | {dataset: own.source(dict)}
        settings = {"data": data, "evaluate": own.section("evaluate", dict)}
        models = {name: paths.model(dataset, name) for name in TRAINED}
        timings = {name: paths.timings(dataset, name) for name in models}
        results.append(read(dataset, settings, paths.metrics(dataset), paths.cache(dataset), models, timings))
    write(results, loss, paths.REPORTS)


if __name__ == "__main__":
    run(main)
