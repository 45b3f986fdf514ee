"""Photos for the training loop: drawn anew every epoch, mirrored, cut into batches, read while the step before them runs."""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recolor.crew import Crew

FREE_SHARE = 0.25  # of a GPU's free memory may go to the photos: networks, gradients and activations take the rest
CHUNK = 256  # photos on their way to the device at once


class Photos(Protocol):
    """What training asks of its photos; `recolor.shards.CachedPhotos` is one."""

    shape: tuple[int, int, int]  # of one photo: (3, H, W)

    def __len__(self) -> int: ...
    def __getitem__(self, indices: NDArray[np.intp]) -> Tensor:
        """(B, 3, H, W) normalised Lab in float32, a copy that may be written to."""
        ...


class OnDevice:
    """All of `photos` on a device, as float16, which is what the cache holds: 393 kB a photo at 256x256."""

    def __init__(self, photos: Photos, device: torch.device) -> None:
        chunks = np.array_split(np.arange(len(photos)), -(-len(photos) // CHUNK))
        self.shape = photos.shape
        self.lab = torch.empty(len(photos), *photos.shape, dtype=torch.float16, device=device)
        for chunk in chunks:
            self.lab[chunk[0] : chunk[-1] + 1] = photos[chunk].half()

    def __len__(self) -> int:
        return len(self.lab)

    def __getitem__(self, indices: NDArray[np.intp]) -> Tensor:
        return self.lab[torch.from_numpy(indices).to(self.lab.device, non_blocking=True)].float()


class Feed:
    """Batches of `photos` on `device`, (batch_size / crew.size, 3, H, W), channels_last.

    `on_device` keeps the photos there; auto does so on a GPU with room for them. Elsewhere they stay where they are, in the
    system's page cache, and a thread reads one batch ahead.
    """

    def __init__(
        self,
        photos: Photos,
        batch_size: int,
        flip: bool,
        seed: int,
        device: torch.device,
        crew: Crew,
        on_device: Literal["auto"] | bool = False,
    ) -> None:
        if on_device is True or (on_device == "auto" and _fits(photos, device)):
            photos = OnDevice(photos, device)
        self.photos = photos
        self.batch_size = batch_size
        self.flip = flip
        self.seed = seed
        self.device = device
        self.crew = crew

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Tensor]:
        """The batches of an epoch from number `first` on. Photos that do not fill the last batch sit the epoch out."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.photos))
        mirrored = rng.random(len(self.photos)) < (0.5 if self.flip else 0)
        batches = iter(range(first, len(self.photos) // self.batch_size))

        def load(batch: int) -> Tensor:
            chosen = self.crew.share(order[batch * self.batch_size : (batch + 1) * self.batch_size])
            real = self.photos[chosen]
            mirror = torch.from_numpy(np.flatnonzero(mirrored[chosen])).to(real.device)
            real[mirror] = real[mirror].flip(-1)
            real = real.contiguous(memory_format=torch.channels_last)
            return real.pin_memory() if self.device.type == "cuda" and not real.is_cuda else real

        with ThreadPoolExecutor(1) as reader:
            ahead = deque(reader.submit(load, batch) for batch in islice(batches, 1))
            while ahead:
                real = ahead.popleft().result()
                ahead.extend(reader.submit(load, batch) for batch in islice(batches, 1))
                # Out of pinned memory the copy runs beside the host, which goes on to queue the step.
                yield real.to(self.device, non_blocking=True)


def _fits(photos: Photos, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return len(photos) * math.prod(photos.shape) * torch.float16.itemsize <= FREE_SHARE * free
