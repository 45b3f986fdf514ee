"""A process of tests/runtime/test_distributed.py, started by torchrun: trains, is stopped, goes on, and writes what it saw."""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("", "runtime", "training")]

import test_distributed as test_crew
import test_loop as test_training
import torch
from test_distributed import CPU, EVALUATION, RECIPES, train_in

from recolor.core.params import Params
from recolor.evaluation import evaluate as evaluation
from recolor.evaluation.evaluate import evaluate
from recolor.evaluation.inception import WeightsUnavailableError
from recolor.runtime.distributed import DistributedContext
from recolor.training import loop as training
from recolor.training.checkpoints import Checkpoints
from recolor.training.loop import Interrupted, train_step
from stages.training import train_model


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    training.CHECKPOINT_SECONDS = 0
    told: dict[str, Any] = {}
    for name, recipe in RECIPES.items():
        trained = train_in(folder / name, recipe)
        norms = [tensor.float().norm().item() for tensor in trained.generator.state_dict().values()]
        told[name] = {"history": trained.history, "norms": norms, "machine": trained.machine}
    told["bf16"] = train_in(folder / "bf16", RECIPES["gan"], "bf16").history
    told["batch norm"] = test_crew.after_batch_norm(DistributedContext.find())
    if rank == 1:
        training.train_step = test_training.stopped_in_step(3)  # a signal to this process alone; all have to stop
    try:
        train_in(folder / "stopped", RECIPES["gan"])
    except Interrupted as error:
        told["interrupted"] = str(error)
    training.train_step = train_step
    told["resumed"] = train_in(folder / "stopped", RECIPES["gan"]).history
    told["checkpoints"] = len(list((folder / "gan").glob("*.safetensors")))
    try:
        test_training.train(
            test_training.MadePhotos(12),
            test_training.settings(batch_size=3),
            CPU,
            test_training.AUGMENT,
            test_training.GENERATOR,
            test_training.DISCRIMINATOR,
            RECIPES["gan"],
            Checkpoints(folder / "odd"),
        )
    except training.UserError as error:
        told["odd"] = str(error)
    os.chdir(folder / f"node{rank}")
    evaluate(Path("data/cache/mine"), {"gan": folder / "model"}, Path("data/metrics"), EVALUATION, CPU, 1)
    told["missing"] = without_weights(rank, folder)
    train_model("gan", Params(Path("params.yaml"), "mine"), RECIPES["gan"])
    told["written"] = sorted(str(file) for file in Path("data").rglob("*") if file.is_file())
    torch.manual_seed(training._seed(1, 0, rank))
    told["noise"] = torch.rand(3).tolist()
    (folder / f"{rank}.json").write_text(json.dumps(told))


def without_weights(rank: int, folder: Path) -> str:
    """Why there are no set scores where the second process alone found no weights."""

    def find_weights(_: Path | None) -> dict[str, Path]:
        if rank == 1:
            raise WeightsUnavailableError("none on the second machine")
        return {}

    evaluation.find_weights = find_weights
    params = EVALUATION.model_copy(update={"inception": "auto"})
    evaluate(Path("data/cache/mine"), {"gan": folder / "model"}, folder / "without weights", params, CPU, 1)
    return json.loads((folder / "without weights" / "notes.json").read_text())["inception"] if rank == 0 else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
