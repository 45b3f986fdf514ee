"""Several processes around a stage's command, each on a device of its own."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recolor.runtime.devices import RuntimeParams


def launch(runtime: "RuntimeParams", stage: str, dataset: str) -> None:
    """Replaces this process by torchrun with `runtime.processes`, unless a launcher has started it already.

    Raises UserError for more processes than GPUs.
    """
    processes = runtime.processes
    if processes == 1 or "LOCAL_RANK" in os.environ:
        return
    import torch

    from recolor.runtime.devices import check_gpus

    check_gpus(runtime.device, processes)
    # They share the threads that this one would have: left to itself, torchrun gives each of them a single one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", f"stages.{stage}", dataset])  # noqa: S606
