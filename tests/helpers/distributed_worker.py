"""A process of tests/runtime/test_distributed.py: trains, is stopped, goes on, and writes its results."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from distributed_runs import CPU, EVALUATION, OBJECTIVES, after_batch_norm, train_in
from training_runs import stopped_in_step

from recolor.core.errors import UserError
from recolor.core.params import Params
from recolor.evaluation import evaluate as evaluation
from recolor.evaluation.evaluate import evaluate
from recolor.evaluation.inception import WeightsUnavailableError
from recolor.runtime.distributed import DistributedContext
from recolor.training import recorder
from recolor.training.loop import Interrupted, derived_seed
from stages.training import train_model


def work_in(folder: Path, rank: int, port: int) -> None:
    """Process `rank` of two that a launcher would have started."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launched.items()})
    PartialState._reset_state()  # this module's imports have set it to one process
    recorder.CHECKPOINT_SECONDS = 0
    seen: dict[str, Any] = {}
    for name, recipe in OBJECTIVES.items():
        trained = train_in(folder / name, recipe)
        norms = [tensor.float().norm().item() for tensor in trained.generator.state_dict().values()]
        seen[name] = {"history": trained.history, "norms": norms, "machine": trained.machine}
    seen["bf16"] = train_in(folder / "bf16", OBJECTIVES["gan"], "bf16").history
    seen["batch norm"] = after_batch_norm(DistributedContext.find())
    # A signal to one process only; all have to stop.
    wrap = {"wrap": lambda method: stopped_in_step(3, method)} if rank == 1 else {}
    try:
        train_in(folder / "stopped", OBJECTIVES["gan"], **wrap)
    except Interrupted as error:
        seen["interrupted"] = str(error)
    seen["resumed"] = train_in(folder / "stopped", OBJECTIVES["gan"]).history
    seen["log"] = []
    seen["from one"] = train_in(folder / "one", OBJECTIVES["gan"], log=seen["log"].append).history
    try:
        train_in(folder / f"disk{rank}", OBJECTIVES["gan"], **wrap)
    except Interrupted:
        seen["moved"] = train_in(folder / f"disk{1 - rank}", OBJECTIVES["gan"]).history
    seen["checkpoints"] = len(list((folder / "gan").glob("*.pt")))
    try:
        train_in(folder / "odd", OBJECTIVES["gan"], batch_size=3)
    except UserError as error:
        seen["odd"] = str(error)
    os.chdir(folder / f"node{rank}")
    evaluate(Path("data/cache/mine"), {"gan": folder / "model"}, Path("data/metrics"), EVALUATION, CPU, 1)
    seen["missing"] = without_weights(rank, folder)
    seen["differs"] = with_other_settings(rank)
    train_model("gan", "mine", Params(Path("params.yaml"), "mine"))
    seen["written"] = sorted(str(file) for file in Path("data").rglob("*") if file.is_file())
    torch.manual_seed(derived_seed(1, 0, rank))
    seen["noise"] = torch.rand(3).tolist()
    (folder / f"{rank}.json").write_text(json.dumps(seen))


def with_other_settings(rank: int) -> str:
    """Why a training is refused where the second process reads another learning rate."""
    settings = json.loads(Path("params.yaml").read_text())
    settings["paper"]["gan"]["lr"] *= 1 + rank
    Path("other.yaml").write_text(json.dumps(settings))
    try:
        train_model("gan", "mine", Params(Path("other.yaml"), "mine"))
    except UserError as error:
        return str(error)
    return ""


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
