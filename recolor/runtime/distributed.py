"""Several processes that train one model, each on a device of its own and with its share of every batch.

They are launched by `accelerate launch` or `torchrun` around the stage's command; an ordinary process is a crew of one.
When training, every process holds all weights and takes the same steps on the same averaged gradients, so the result is that of
one process with the whole batch, up to rounding: batch norm takes its statistics over the whole batch too, and each photo has
one place in one share. Dropout and a penalty's mixing draw differently in each process.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # of processes that wait for the main one while it takes scores or writes a checkpoint


@dataclass(frozen=True)
class Crew:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1
    control: Any = None  # a group on CPUs, for what need not wait for a GPU

    @classmethod
    def find(cls) -> Self:
        """The crew that this process was launched in, once Machine.find has set it up; all of its processes ask together."""
        state = PartialState()
        if state.num_processes == 1:
            return cls()
        return cls(state.process_index, state.num_processes, dist.new_group(backend="gloo", timeout=PATIENCE))

    @property
    def main(self) -> bool:
        """Whether this process is the one that speaks, holds the lock and writes."""
        return self.rank == 0

    def share(self, batch: NDArray[Any]) -> NDArray[Any]:
        """This process's part of a batch whose length `size` divides."""
        return np.split(batch, self.size)[self.rank]

    def average_gradients(self, network: nn.Module) -> None:
        """Leaves the mean over processes in the gradients of `network`; losses are means over a share, and shares are equal.

        By hand, once a backward pass is over, and not by DistributedDataParallel: that expects one forward and one backward
        pass of a module in each step, and a critic is run on real and on fake, differentiated twice for a gradient
        penalty, and left out of its own backward pass in the generator's step. One flat buffer: one message, not sixty.
        """
        if self.size > 1:
            gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
            flat = self.average(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(averaged.view(gradient.shape))

    def average(self, values: Tensor) -> Tensor:
        """The mean of `values` over processes, in their place."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def any(self, *questions: bool) -> list[bool]:
        """For each question, whether any process answers yes: what all must do together, all must know."""
        if self.size == 1:
            return list(questions)
        answers = torch.tensor(questions, dtype=torch.int32)
        dist.all_reduce(answers, dist.ReduceOp.MAX, self.control)
        return [bool(answer) for answer in answers]

    def from_main(self, thing: T) -> T:
        """The main process's `thing`, in every process; it travels as a pickle."""
        things = [thing]
        if self.size > 1:
            dist.broadcast_object_list(things, src=0, group=self.control)
        return things[0]

    def share_batch_norm(self, networks: Iterable[nn.Module]) -> None:
        """Lets batch norm take its statistics over all processes' photos; weights and names stay what they were."""
        if self.size == 1:
            return
        for network in networks:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
            for layer in network.modules():
                if isinstance(layer, nn.SyncBatchNorm) and layer.weight.device.type == "cpu":
                    layer.__class__ = _BatchNormOnCPUs

    def add_up(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Puts the sum over processes in the place of each array."""
        if self.size > 1:
            for array in arrays:
                dist.all_reduce(torch.from_numpy(array), group=self.control)

    def gather(self, thing: T) -> list[T]:
        """Every process's `thing`, in every process; it travels as a pickle."""
        things = [thing] * self.size
        if self.size > 1:
            dist.all_gather_object(things, thing, group=self.control)
        return things

    def __str__(self) -> str:
        return "1 process" if self.size == 1 else f"{self.size} processes"


class _BatchNormOnCPUs(nn.SyncBatchNorm):
    """What nn.SyncBatchNorm does on GPUs, where alone it runs."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if not self.training:
            return super().forward(features)
        values = features.float()
        processes = dist.get_world_size()
        count = values.numel() // values.shape[1] * processes
        mean = _Sum.apply(values.mean((0, 2, 3), keepdim=True)) / processes
        centred = values - mean
        variance = _Sum.apply(centred.square().mean((0, 2, 3), keepdim=True)) / processes
        with torch.no_grad():
            averages: Any = self  # typed as None or a tensor
            averages.running_mean.lerp_(mean.flatten(), averages.momentum)
            averages.running_var.lerp_(variance.flatten() * count / (count - 1), averages.momentum)
            averages.num_batches_tracked += 1
        scale = self.weight.view(1, -1, 1, 1) * (variance + self.eps).rsqrt()
        return (centred * scale + self.bias.view(1, -1, 1, 1)).to(features.dtype)


class _Sum(torch.autograd.Function):
    """The sum over processes; so is its gradient's, because every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)
