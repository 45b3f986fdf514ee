"""The devices of this machine, and what its processor is good at."""

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from recolor.core.errors import UserError

if TYPE_CHECKING:
    import torch


def find_device(name: "str | torch.device", setting: str = "device") -> "torch.device":
    """The device `name`; auto is the accelerator, or the CPU without one. Raises UserError, which names `setting`."""
    import torch  # not at the top: core is imported where torch's seconds are not needed

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return found or torch.device("cpu")
    available = ["cpu", *(f"{found}:{index}" for index in range(torch.accelerator.device_count()))]
    with contextlib.suppress(RuntimeError, TypeError):  # not the name of any device
        device = torch.device(name)
        if f"{device.type}:{device.index or 0}" in (*available, "cpu:0"):
            return device
    raise UserError(f"{setting}: got {name}, which is not available here; must be auto, {', '.join(available)}")


def channels_last_is_faster(device: "torch.device") -> bool:
    """Whether convolutions in float32 are faster in channels_last; on x86 with AVX2 alone they are 20 to 45% slower."""
    return device.type != "cpu" or cpu_has_any(("avx512_f", "sve", "neon"))


def cpu_has_any(instructions: Iterable[str]) -> bool:
    """Whether the CPU has one of the instruction sets, by torch's names; false where torch is too old to report them."""
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in instructions)
