"""Batches for the training loop: shuffled every epoch, mirrored, and read while the previous step runs."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FREE_SHARE = 0.25  # of a GPU's free memory for the photos; the rest is for networks, gradients and activations
CHUNK = 256  # photos copied to the device at once


class Photos(Protocol):
    """The photos that training needs; `recolor.dataset.shards.CachedPhotos` implements it."""

    shape: tuple[int, int, int]  # of one photo: (3, H, W)

    def __len__(self) -> int: ...
    def read_fp16(self, indices: NDArray[np.intp]) -> Tensor:
        """(B, 3, H, W) normalised Lab in float16, as stored: 393 kB per photo at 256x256."""
        ...


class BatchLoader:
    """Batches of `photos` on `device`, (batch_size / world_size, 3, H, W), float32, channels_last.

    `on_device` keeps all photos on the device; auto does so on a GPU with enough memory. Otherwise a thread reads one batch
    ahead from the cache. Photos are copied to the device in float16 and converted and mirrored there. `rank` and `world_size`:
    of this process, which gets its share of each batch.
    """

    def __init__(
        self,
        photos: Photos,
        batch_size: int,
        flip: bool,
        seed: int,
        device: torch.device,
        on_device: Literal["auto"] | bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.photos = photos
        self.batch_size = batch_size
        self.flip = flip
        self.seed = seed
        self.device = device
        self.rank = rank
        self.world_size = world_size
        keep = on_device is True or (on_device == "auto" and _fits(photos, device))
        self.held = _copy(photos, device) if keep else None

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Tensor]:
        """The batches of an epoch from number `first` on. Photos left over after the last full batch are not used."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.photos))
        mirrored = rng.random(len(self.photos)) < (0.5 if self.flip else 0)
        steps = len(self.photos) // self.batch_size
        batches = order[: steps * self.batch_size].reshape(steps, self.batch_size)[first:]
        chosen = np.ascontiguousarray(np.split(batches, self.world_size, axis=1)[self.rank])
        # Copied once per epoch: a copy from ordinary memory waits for all queued work of the device.
        mirror = torch.from_numpy(mirrored[chosen]).to(self.device)
        if self.held is None:
            return self._read_ahead(chosen, mirror)
        places, held = torch.from_numpy(chosen).to(self.device), self.held
        return (_finished(held[places[batch]], mirror[batch]) for batch in range(len(chosen)))

    def _read_ahead(self, chosen: NDArray[np.intp], mirror: Tensor) -> Iterator[Tensor]:
        on_cpu, on_gpu = self.device.type == "cpu", self.device.type == "cuda"

        def read(batch: int) -> Tensor:
            half = self.photos.read_fp16(chosen[batch])
            if on_cpu:
                return _finished(half, mirror[batch])  # while the previous step runs
            return half.pin_memory() if on_gpu else half

        if not len(chosen):
            return
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(read, 0)
            for batch in range(len(chosen)):
                photos = reading.result()
                if batch + 1 < len(chosen):
                    reading = reader.submit(read, batch + 1)
                if not on_cpu:
                    # From pinned memory the copy is asynchronous. From ordinary memory it must not be: on MPS the photos may
                    # be freed before they are copied (pytorch/pytorch#189690).
                    photos = _finished(photos.to(self.device, non_blocking=on_gpu), mirror[batch])
                yield photos


def _finished(half: Tensor, mirror: Tensor) -> Tensor:
    """(B, 3, H, W) float16 to float32 in channels_last, mirrored where `mirror`, (B), is true."""
    half = torch.where(mirror[:, None, None, None], half.flip(-1), half)
    return half.to(torch.float32, memory_format=torch.channels_last)


def _copy(photos: Photos, device: torch.device) -> Tensor:
    """All of `photos` on a device."""
    held = torch.empty(len(photos), *photos.shape, dtype=torch.float16, device=device)
    for chunk in np.array_split(np.arange(len(photos)), -(-len(photos) // CHUNK)):
        held[chunk[0] : chunk[-1] + 1] = photos.read_fp16(chunk)
    return held


def _fits(photos: Photos, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return len(photos) * math.prod(photos.shape) * torch.float16.itemsize <= FREE_SHARE * free
