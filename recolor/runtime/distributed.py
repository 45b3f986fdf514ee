"""Several processes that train one model, each on its own device and with its own share of every batch.

`accelerate launch` or `torchrun` starts them. Every process holds all weights and applies the same averaged gradients, so the
result is that of one process with the whole batch, up to rounding: batch norm computes its statistics over the whole batch too.
Dropout, augmentation and a gradient penalty draw other numbers in each process.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # with a gradient

from recolor.core.errors import UserError

T = TypeVar("T")
TIMEOUT = timedelta(days=1)  # of processes that wait while the main one scores a model or writes a checkpoint


@dataclass(frozen=True)
class DistributedContext:
    """This process among those that train together."""

    rank: int = 0
    world_size: int = 1
    control: Any = None  # a process group on CPUs, for messages that need not wait for a GPU

    @classmethod
    def find(cls) -> Self:
        """The processes of the launcher. Call it after RuntimeContext.find, in all processes."""
        state = PartialState()
        if state.num_processes == 1:
            return cls()
        return cls(state.process_index, state.num_processes, dist.new_group(backend="gloo", timeout=TIMEOUT))

    @property
    def is_main(self) -> bool:
        """Whether this process logs, holds the lock and writes files."""
        return self.rank == 0

    def average_gradients(self, network: nn.Module) -> None:
        """Replaces the gradients of `network` by their mean over processes, in one message.

        DistributedDataParallel expects one forward and one backward pass of a module in each step; a critic runs on real and on
        fake photos, has second derivatives for a gradient penalty and is frozen in the generator's step.
        """
        if self.world_size > 1:
            gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
            flat = self.all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(averaged.view(gradient.shape))

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def all_reduce_any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process. Every step calls it; `all_gather`, which pickles, is slower."""
        values = np.array(flags, np.int32)
        self.all_reduce_sum(values)
        return [bool(value) for value in values]

    def all_reduce_sum(self, *arrays: NDArray[Any]) -> None:
        """Replaces each array by its sum over processes."""
        if self.world_size > 1:
            for array in arrays:
                dist.all_reduce(torch.from_numpy(array), group=self.control)

    def broadcast(self, value: T, source: int = 0) -> T:
        """The `value` of process `source`, the main one by default, in every process. It is pickled."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, src=source, group=self.control)
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """Every process's `value`, in every process. It is pickled."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def check_same(self, inputs: Mapping[str, Any]) -> None:
        """Raises UserError where processes have different `inputs`: each of them would train another model."""
        first, *others = self.all_gather(dict(inputs))
        for rank, theirs in enumerate(others, 1):
            if different := [name for name in first if theirs[name] != first[name]]:
                where = f"process {rank} differs from process 0"
                advice = "copy what process 0 has to the others"
                raise UserError(f"{different[0]}: not the same on all machines ({where}); {advice}")

    def sync_batch_norm(self, networks: Iterable[nn.Module]) -> None:
        """Lets batch norm compute its statistics over all processes' photos; weights and names stay the same."""
        if self.world_size == 1:
            return
        from timm.layers import convert_sync_batchnorm  # torch's own drops the activation inside timm's batch norm

        for network in networks:
            convert_sync_batchnorm(network)
            for layer in network.modules():
                if isinstance(layer, nn.SyncBatchNorm) and layer.weight.device.type == "cpu":
                    kind = type(layer)
                    timms = () if kind is nn.SyncBatchNorm else (kind,)  # with an activation
                    layer.__class__ = type(kind.__name__, (*timms, _SyncBatchNormOnCPU), {})

    def __str__(self) -> str:
        return "1 process" if self.world_size == 1 else f"{self.world_size} processes"


class _SyncBatchNormOnCPU(nn.SyncBatchNorm):
    """nn.SyncBatchNorm, which runs on GPUs only, for CPUs."""

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        values = features.float()
        processes = dist.get_world_size()
        count = values.numel() // values.shape[1] * processes
        mean = all_reduce(values.mean((0, 2, 3), keepdim=True)) / processes
        centred = values - mean
        variance = all_reduce(centred.square().mean((0, 2, 3), keepdim=True)) / processes
        with torch.no_grad():
            averages: Any = self  # typed as None or a tensor
            averages.running_mean.lerp_(mean.flatten(), averages.momentum)
            averages.running_var.lerp_(variance.flatten() * count / (count - 1), averages.momentum)
            averages.num_batches_tracked += 1
        scale = self.weight.view(1, -1, 1, 1) * (variance + self.eps).rsqrt()
        return (centred * scale + self.bias.view(1, -1, 1, 1)).to(features.dtype)
