"""Runs that tests/runtime/test_distributed.py makes in one process and distributed_worker.py in two."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from training_runs import GAN, GENERATOR, WGAN, run

from recolor.evaluation.evaluate import EvaluateParams
from recolor.models.objectives import ObjectiveParams
from recolor.runtime.context import RuntimeParams
from recolor.runtime.distributed import DistributedContext
from recolor.training.loop import Trained

# Both have batch norm in the generator and in the critic. Dropout draws differently in each process: without it.
OBJECTIVES: dict[str, ObjectiveParams] = {"gan": GAN, "wgan": WGAN}
CPU = RuntimeParams(device="cpu", precision="fp32", compile=False)
EVALUATION = EvaluateParams(batch_size=4, inception="off", inception_weights=None, bootstrap=100, examples=2)
SCORED = ("scores.csv", "photos.csv", "examples.csv", "examples.npz", "notes.json")
STILL = GENERATOR.model_copy(update={"dropout": 0.0})


def train_in(folder: Path, params: ObjectiveParams, precision: str = "fp32", **options: Any) -> Trained:
    runtime = CPU.model_copy(update={"precision": precision})
    return run(folder, params, runtime=runtime, generator=STILL, **{"epochs": 3, **options})


def after_batch_norm(distributed: DistributedContext) -> dict[str, list[Any]]:
    """Outputs, gradients and statistics of a batch norm layer after this process's share of two batches."""
    random = torch.Generator().manual_seed(5)
    network = nn.Sequential(nn.BatchNorm2d(3))
    distributed.sync_batch_norm([network])
    seen: dict[str, list[Any]] = {"results": [], "gradients": []}
    for _ in range(2):
        batch, slopes = (torch.randn(4, 3, 2, 2, generator=random) * 3 + 1 for _ in range(2))
        share, slope = (
            torch.from_numpy(np.split(whole.numpy(), distributed.world_size)[distributed.rank])
            for whole in (batch, slopes)
        )
        share.requires_grad_()
        result = network(share)
        (result * slope).sum().backward()
        seen["results"].append(result.tolist())
        seen["gradients"].append(share.grad.tolist())
    return {**seen, **{name: tensor.tolist() for name, tensor in network.state_dict().items()}}
