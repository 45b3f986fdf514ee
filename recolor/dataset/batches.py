"""Batches for the training loop: shuffled every epoch, mirrored, and read while the previous step runs."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recolor.core.errors import UserError
from recolor.core.iterators import in_order
from recolor.core.params import Auto
from recolor.dataset.shards import CachedPhotos

FREE_SHARE = 0.25  # of a GPU's free memory for the photos; the rest is for networks, gradients and activations
CHUNK = 256  # photos copied to the device at once


@dataclass
class BatchLoader:
    """Batches of `photos` on `device`, (batch_size / world_size, 3, H, W), float32, channels_last.

    `on_device` keeps all photos on the device; auto does so on a GPU with enough memory. Otherwise a thread reads one batch
    ahead from the cache. This process, `rank` of `world_size`, gets its share of each batch. `steps`: batches of an epoch.
    Raises UserError for a batch size that does not fit.
    """

    photos: CachedPhotos
    batch_size: int
    flip: bool
    seed: int
    device: torch.device
    on_device: Auto = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        size, count, shape = self.batch_size, len(self.photos), self.photos.shape
        if size > count:
            raise UserError(f"train.batch_size: got {size}; must be at most {count}, the number of photos to train on")
        if size % self.world_size:
            raise UserError(f"train.batch_size: got {size}; must be a multiple of the {self.world_size} processes")
        self.steps = count // size
        self.held: Tensor | None = None
        keep = self.on_device
        if keep == "auto":
            free = FREE_SHARE * torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 0
            keep = count * math.prod(shape) * torch.float16.itemsize <= free
        if keep:
            self.held = torch.empty(count, *shape, dtype=torch.float16, device=self.device)
            for chunk in np.array_split(np.arange(count), -(-count // CHUNK)):
                self.held[chunk[0] : chunk[-1] + 1] = self.photos.read_fp16(chunk)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Tensor]:
        """The batches of an epoch from number `first` on. Photos left over after the last full batch are not used."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.photos))
        mirrored = rng.random(len(self.photos)) < (0.5 if self.flip else 0)
        batches = order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)[first:]
        chosen = np.ascontiguousarray(np.split(batches, self.world_size, axis=1)[self.rank])
        # Copied once per epoch: a copy from ordinary memory waits for all queued work of the device.
        mirror = torch.from_numpy(mirrored[chosen]).to(self.device)
        if self.held is None:
            halves = read_ahead(lambda batch: self.photos.read_fp16(chosen[batch]), range(len(chosen)), self.device)
        else:
            halves = map(self.held.__getitem__, torch.from_numpy(chosen).to(self.device))
        return map(_finished, halves, mirror)


def read_ahead(
    read: Callable[[int], Tensor], items: Iterable[int], device: torch.device, threads: int = 1
) -> Iterator[Tensor]:
    """`read` of each item, in order and on `device`. Each thread reads a batch, and one more batch is waiting."""
    on_gpu = device.type == "cuda"

    def read_pinned(item: int) -> Tensor:
        return read(item).pin_memory() if on_gpu else read(item)

    with ThreadPoolExecutor(threads) as readers:
        for batch in in_order(readers, read_pinned, items, threads + 1):
            # From pinned memory the copy is asynchronous. From ordinary memory it must not be: on MPS the photos may be
            # freed before they are copied (pytorch/pytorch#189690).
            yield batch.to(device, non_blocking=on_gpu)


def _finished(half: Tensor, mirror: Tensor) -> Tensor:
    """(B, 3, H, W) float16 to float32 in channels_last, mirrored where `mirror`, (B), is true."""
    half = torch.where(mirror[:, None, None, None], half.flip(-1), half)
    return half.to(torch.float32, memory_format=torch.channels_last)
