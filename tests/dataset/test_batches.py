"""The photos of each batch: by epoch, by process, from the cache or from the device's memory."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import MadePhotos

from recolor.dataset.batches import CHUNK, BatchLoader

CPU = torch.device("cpu")
ELSEWHERE = torch.device("meta")  # a device of every machine: shapes without values


def loader(photos: MadePhotos, **options: Any) -> BatchLoader:
    return BatchLoader(photos, 4, True, 1, CPU, **options)


def epoch(source: BatchLoader, number: int = 0, first: int = 0) -> Tensor:
    return torch.stack(list(source.epoch(number, first)))


def test_an_epoch_can_start_at_any_batch() -> None:
    source = loader(MadePhotos(18))
    assert torch.equal(epoch(source, first=2), epoch(source)[2:])
    assert len(epoch(source)) == 4  # two photos are left over
    assert not torch.equal(epoch(source, 1), epoch(source, 0))


def test_an_epoch_that_was_left_at_its_end_has_nothing_more() -> None:
    assert list(loader(MadePhotos(12)).epoch(0, 3)) == []


def test_the_shares_of_the_processes_are_the_batch() -> None:
    photos = MadePhotos(12)
    shares = [epoch(loader(photos, rank=rank, world_size=2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(shares, dim=1), epoch(loader(photos)))


def test_photos_on_the_device_make_the_same_batches() -> None:
    photos = MadePhotos(CHUNK + 10, size=2)
    held = loader(photos, on_device=True)
    assert held.held is not None
    assert held.held.dtype == torch.float16
    expected = epoch(loader(photos))
    photos.asked.clear()
    assert torch.equal(epoch(held), expected)
    assert not photos.asked


def test_on_a_cpu_auto_leaves_the_photos_where_they_are() -> None:
    photos = MadePhotos(12)
    assert BatchLoader(photos, 4, True, 1, CPU, "auto").held is None


class Copies(TorchDispatchMode):
    """Records each copy to ELSEWHERE within the block: dtype and whether it is asynchronous."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, bool]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if options.get("device") == ELSEWHERE and args and isinstance(args[0], Tensor) and args[0].device == CPU:
            self.seen.append((args[0].dtype, options.get("non_blocking", False)))
        return function(*args, **options)


@pytest.mark.parametrize("on_device", [True, False])
def test_a_batch_goes_to_the_device_once_as_float16_and_not_at_all_where_it_lies_there(on_device: bool) -> None:
    source = BatchLoader(MadePhotos(12), 4, True, 1, ELSEWHERE, on_device)
    with Copies() as copies:
        batches = source.epoch(0)
        copies.seen.clear()  # indices and mirroring are copied once per epoch
        made = list(batches)
    assert all(batch.device == ELSEWHERE and batch.dtype == torch.float32 for batch in made)
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in made)
    # Synchronous: from memory that is not pinned, asynchronous copies are no faster, and on MPS not safe.
    assert copies.seen == ([] if on_device else [(torch.float16, False)] * 3)


def test_batches_are_channels_last_and_the_photos_themselves_stay_as_they_were() -> None:
    photos = MadePhotos(12)
    before = photos.lab.clone()
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in loader(photos).epoch(0))
    assert torch.equal(photos.lab, before)


def test_an_unreadable_photo_is_an_error_and_not_a_hang() -> None:
    class Broken(MadePhotos):
        def read_fp16(self, indices: np.ndarray) -> Tensor:
            raise OSError("no such page")

    with pytest.raises(OSError, match="no such page"):
        epoch(loader(Broken(12)))
