"""torch.compile, where it is wanted and works."""

from collections.abc import Iterable

import torch
from torch import nn

from recolor.core.params import Auto
from recolor.runtime.distributed import DistributedContext


def compile_networks(
    networks: Iterable[nn.Module], wanted: Auto, device: torch.device, distributed: DistributedContext
) -> str | None:
    """Compiles `networks` in place; `auto` does so on CUDA only. Returns why they run eagerly where compiling fails.

    A trial on a small network finds a missing compiler, missing headers and a GPU that is too old. All processes compile, or
    none does: they wait for each other in a step.
    """
    if wanted is False or (wanted == "auto" and device.type != "cuda"):
        return None
    reason = next(filter(None, distributed.all_gather(_failure(device))), None)
    if reason is None:
        for network in networks:
            network.compile()
    return reason


def _failure(device: torch.device) -> str:
    """The error of a small compiled network, forwards and backwards, in one line; empty where it works."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).to(device)
    try:
        with torch.random.fork_rng():
            torch.compile(network)(torch.ones(1, 1, 8, 8, device=device)).sum().backward()
    except Exception as error:  # each cause has an error class of its own
        cause = getattr(error, "inner_exception", error)  # the back end's own error
        return str(cause).strip().partition("\n")[0] or type(cause).__name__
    return ""
