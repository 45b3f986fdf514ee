"""Runs a stage in several processes, each on its own device."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recolor.runtime.context import RuntimeParams


def launch(runtime: "RuntimeParams", stage: str, *arguments: str) -> None:
    """Replaces this process by torchrun with `runtime.processes`, unless a launcher started it. UserError for too few GPUs."""
    if (processes := runtime.processes) == 1 or "LOCAL_RANK" in os.environ:
        return
    import torch

    from recolor.runtime.context import check_gpus

    check_gpus(runtime.device, processes)
    # They share the threads of one process; torchrun would give each a single one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", f"stages.{stage}", *arguments])  # noqa: S606
