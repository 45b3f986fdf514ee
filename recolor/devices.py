"""Which device and precision the networks run in: one place for training, evaluation and inference."""

from typing import Literal

import torch
from accelerate import Accelerator

from recolor.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32"]


def accelerator(device: Device = "auto", precision: Precision = "fp32") -> Accelerator:
    """accelerate's choice of device (CUDA, then MPS, then the CPU), or `device` and nothing else.

    `precision` auto is bf16 where `bf16_in_hardware`, else fp32. Raises UserError where `device` is not to be had.
    """
    found = Accelerator(cpu=device == "cpu").device
    if device not in ("auto", found.type):
        raise UserError(f"device: got {device}, which this machine does not have; it has {found.type}, or say auto")
    bf16 = precision == "bf16" or (precision == "auto" and bf16_in_hardware(found))
    return Accelerator(cpu=device == "cpu", mixed_precision="bf16" if bf16 else "no")


def bf16_in_hardware(device: torch.device) -> bool:
    """Whether bf16 products run in units of their own there, as torch reports it; emulated they are slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # torch < 2.11 does not say
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False
