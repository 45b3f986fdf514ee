"""Which device and precision the networks run in: one place for training, evaluation and inference."""

from typing import Literal

from accelerate import Accelerator

from recolor.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]


def accelerator(device: Device = "auto", mixed_precision: Literal["no", "bf16"] = "no") -> Accelerator:
    """accelerate's choice (CUDA, then MPS, then the CPU), or `device` and nothing else.

    Raises UserError where `device` is not to be had.
    """
    chosen = Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)
    if device not in ("auto", chosen.device.type):
        raise UserError(
            f"train.device: got {device}, which this machine has not; {chosen.device.type} is here, or say auto"
        )
    return chosen
