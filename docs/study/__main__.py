"""The comparison of docs/study.md: `python -m docs.study run`, then collect, figures and sheets."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from docs.study.grid import ARMS, TRAINED, Run, grid
from recolor.core.errors import UserError
from stages import paths

HERE = Path(__file__).parent


def _listed(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    return lambda text: [kind(word) for word in text.split(",")]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m docs.study", description=__doc__)
    top.add_argument("--study", type=Path, default=Path("data/study"), help="folder of models and scores")
    top.add_argument("--out", type=Path, default=HERE, help="folder of tables and figures")
    commands = top.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="train the grid: as experiments of DVC, or with --direct by the stages alone")
    run.add_argument("dataset")
    run.add_argument("--l1", type=Path, help="the model that all start from; default: data/models/DATASET/l1")
    run.add_argument("--direct", action="store_true", help="without DVC, each model in a folder of its own")
    run.add_argument("--arms", type=_listed(str), default=TRAINED, help=f"default: {','.join(TRAINED)}")
    run.add_argument("--balances", type=_listed(float), default=[0.5, 1.5], help="default: 0.5,1.5")
    run.add_argument("--seeds", type=_listed(int), default=[1, 2, 3], help="default: 1,2,3")
    run.add_argument("--epochs", type=int, help="of a GAN; a WGAN has n_critic times as many; default: params.yaml's")
    run.add_argument("--params", type=Path, default=paths.PARAMS)
    run.add_argument("--cache", type=Path, help="default: data/cache/DATASET")
    run.add_argument("--train", type=int, help="photos to train on; only with --direct; default: all")
    run.add_argument("--test", type=int, help="photos to measure; only with --direct; default: all")

    add = commands.add_parser("add", help="add a model that was trained elsewhere")
    add.add_argument("dataset")
    add.add_argument("folder", type=Path)
    add.add_argument("--arm", choices=[name for name in ARMS if name != "grey"], required=True)
    add.add_argument("--balance", type=float)
    add.add_argument("--seed", type=int)
    add.add_argument("--timings", type=Path, help="its CSV file in data/timings")
    add.add_argument("--cache", type=Path, help="default: data/cache/DATASET")
    add.add_argument("--test", type=int, help="photos to measure, in a new study; default: all")

    collect = commands.add_parser("collect", help="measure the models; write results, differences and curves")
    collect.add_argument("--inception", type=Path, help="folder with Inception's weights, for FID, KID and IS")
    commands.add_parser("figures", help="draw what collect wrote")
    sheets = commands.add_parser("sheets", help="contact sheets of 100 test photos, outside the repository")
    sheets.add_argument("folder", type=Path)
    sheets.add_argument("--side", type=int, default=128, help="pixels of a picture")
    faults = commands.add_parser("faults", help="count the faults that were written into the sheets' faults.csv")
    faults.add_argument("folder", type=Path)
    return top


def train_grid(options: argparse.Namespace) -> None:
    from docs.study import running

    unknown = set(options.arms) - set(TRAINED)
    if unknown:
        raise UserError(f"--arms: got {min(unknown)}; must be among {', '.join(TRAINED)}")
    if not options.direct and (options.train or options.test or options.cache):
        raise UserError("--cache, --train and --test: only with --direct; DVC trains on all photos of data/cache")
    dataset, study = options.dataset, options.study
    l1 = Run("l1", None, None, dataset)
    start = options.l1 or paths.model(dataset, "l1")
    running.add_cache(study, options.cache or paths.cache(dataset), options.train, options.test)
    running.add_model(study, l1, start, None if options.l1 else paths.timings(dataset, "l1"))
    start = running.model_folder(study, l1)  # a copy: nothing changes it while the grid is trained
    runs = grid(options.arms, options.balances, options.seeds, dataset)
    train = running.run_direct if options.direct else running.run_queued
    train(study, runs, options.params, start, options.epochs)


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.command == "run":
        train_grid(options)
    elif options.command == "add":
        from docs.study.running import add_cache, add_model

        add_cache(options.study, options.cache or paths.cache(options.dataset), None, options.test)
        run = Run(options.arm, options.balance, options.seed, options.dataset)
        add_model(options.study, run, options.folder, options.timings)
    elif options.command == "collect":
        from docs.study.tables import collect, markdown

        print(markdown(collect(options.study, options.out, options.inception)))
    elif options.command == "figures":
        from docs.study.figures import write_all

        write_all(options.study, options.out)
    elif options.command == "sheets":
        from docs.study.sheets import write_sheets

        print(*write_sheets(options.study, options.folder, options.side), sep="\n")
    else:
        from docs.study.sheets import count_faults

        count_faults(options.folder, options.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
