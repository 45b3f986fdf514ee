"""Several processes around a stage's command, each on a device of its own."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recolor.runtime.devices import Device


def launch(section: str, processes: int, device: "Device", stage: str, dataset: str) -> None:
    """Where `processes` are asked for and no launcher has started this one, torchrun takes its place and starts them.

    `section` of params.yaml is the one that asks. Raises UserError for more processes than GPUs.
    """
    if processes == 1 or "LOCAL_RANK" in os.environ:
        return
    import torch

    from recolor.runtime.devices import check_gpus

    check_gpus(device, processes, f"{section}.processes")
    # They share the threads that this one would have: left to itself, torchrun gives each of them a single one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", f"stages.{stage}", dataset])  # noqa: S606
