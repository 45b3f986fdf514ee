"""Section `runtime`, and the device, precision and memory that training and evaluation run with."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

import torch
from accelerate import PartialState
from pydantic import Field
from torch import Tensor, nn

from recolor.core.devices import channels_last_is_faster, cpu_has_any, find_device
from recolor.core.errors import UserError
from recolor.core.params import Auto, Section
from recolor.runtime.distributed import DistributedContext

M = TypeVar("M", bound=nn.Module)
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32"]

# Instructions that multiply bf16, as torch.cpu.get_capabilities names them: x86's, and ARM's with and without SVE.
BF16_PRODUCTS = ("amx_bf16", "avx512_bf16", "avx10_2", "bf16", "sve_bf16")

# Options in glibc's malloc.h, and the values that malloc settles on with blocks as large as ours.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
_DEFAULTS = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25, M_MMAP_MAX: 2**16}


class RuntimeParams(Section, frozen=True):
    """Section `runtime`: settings of the machine. They change results by rounding only."""

    device: Device = "auto"
    precision: Precision = "auto"
    compile: Auto = "auto"
    processes: int = Field(1, ge=1, le=1024)
    checkpoint_minutes: float = Field(10, gt=0)
    data_on_device: Auto = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class RuntimeContext:
    """The device of this process, whether it computes in bf16, and the processes that work together."""

    device: torch.device
    bf16: bool
    distributed: DistributedContext = field(default_factory=DistributedContext)

    @classmethod
    def find(cls, device: Device = "auto", precision: Precision = "fp32") -> Self:
        """The context of this process. `device` auto: accelerate's choice; `precision` auto: bf16 where `bf16_in_hardware`.

        Raises UserError for a device that this machine does not have.
        """
        find_device(device, "runtime.device")
        # With cpu=True accelerate also sets up a launcher's processes on CPUs.
        found = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available()).device
        bf16 = precision == "bf16" or (precision == "auto" and bf16_in_hardware(found))
        return cls(found, bf16, DistributedContext.find())

    def autocast(self) -> torch.autocast:
        """Runs convolutions in bf16 within the block, where that was chosen; weights and losses stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @property
    def memory_format(self) -> torch.memory_format:
        """The faster memory format, for images and weights."""
        fast = self.bf16 or channels_last_is_faster(self.device)
        return torch.channels_last if fast else torch.contiguous_format

    def place(self, network: M) -> M:
        """`network` on the device, in training mode."""
        return network.to(self.device).to(memory_format=self.memory_format).train()

    def layout(self, images: Tensor) -> Tensor:
        """`images` (B, C, H, W) in the memory format of this context."""
        return images.contiguous(memory_format=self.memory_format)

    def compile(self, networks: Iterable[nn.Module], wanted: Auto, log: Callable[[str], None]) -> None:
        """Compiles `networks` in place; `auto` does so on CUDA only. Where compiling fails, `log` gets the reason in one line.

        A trial on a small network finds a missing compiler, missing headers and a GPU that is too old. All processes or none.
        """
        if wanted is False or (wanted == "auto" and self.device.type != "cuda"):
            return
        if reason := next(filter(None, self.distributed.all_gather(_compile_failure(self.device))), None):
            log(f"runtime.compile: training runs without torch.compile, which fails here: {reason}")
            return
        for network in networks:
            network.compile()

    def __str__(self) -> str:
        return f"{self.device.type}, {'bf16' if self.bf16 else 'fp32'}"


def check_gpus(device: Device, processes: int) -> None:
    """Raises UserError for more `processes` than GPUs."""
    gpus = torch.cuda.device_count()
    if device in ("auto", "cuda") and torch.cuda.is_available() and processes > gpus:
        raise UserError(f"runtime.processes: got {processes}; must be at most {gpus}, the number of GPUs here")


def bf16_in_hardware(device: torch.device) -> bool:
    """Whether the device has units for bf16 products, as torch reports it; emulated, bf16 is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Convolutions use the CPU's units through oneDNN, and some builds of torch have no oneDNN.
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and cpu_has_any(BF16_PRODUCTS)


def _compile_failure(device: torch.device) -> str:
    """The error of a small compiled network, forwards and backwards, in one line; empty where it works."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).to(device)
    try:
        with torch.random.fork_rng():
            torch.compile(network)(torch.ones(1, 1, 8, 8, device=device)).sum().backward()
    except Exception as error:  # each cause has an error class of its own
        cause = getattr(error, "inner_exception", error)  # the back end's own error
        return str(cause).strip().partition("\n")[0] or type(cause).__name__
    return ""


@contextmanager
def determinism(wanted: bool, strict: bool = True) -> Iterator[None]:
    """Within the block two runs on one GPU give the same bits where `wanted`; otherwise cuDNN picks its fastest convolutions.

    An operation without a deterministic implementation raises RuntimeError, or warns where not `strict`. Afterwards torch has
    its defaults.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    try:
        torch.use_deterministic_algorithms(wanted, warn_only=not strict)
        torch.backends.cudnn.benchmark = not wanted
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


@contextmanager
def retain_heap() -> Iterator[None]:
    """Within the block malloc keeps freed memory for the next step; afterwards it goes back to the system.

    By default glibc maps every large tensor anew and the kernel clears its pages: on a CPU a fifth of a training step in
    float32, and a third of an evaluation. Afterwards malloc has its defaults. Does nothing without glibc.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    try:
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        yield
    finally:
        for option, value in _DEFAULTS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
