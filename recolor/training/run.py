"""A run of a training: what it starts from, what identifies it on every machine, and what it writes after an epoch."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from recolor.core.errors import UserError
from recolor.core.storage import atomic_file, file_sha256
from recolor.dataset.shards import CachedPhotos
from recolor.models.folder import load_generator
from recolor.models.generators import build_generator
from recolor.models.layers import Generator
from recolor.models.pictures import GREY, TRUTH, coloured_arrays
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.loop import TrainParams, derived_seed
from recolor.training.progress import HISTORY, write_rows

SAMPLES = 8  # photos in a picture


def starting_generator(params: Any, start: Path | None, seed: int) -> Generator:
    """A new generator, with the weights of the folder `start` if there is one. Raises UserError if its network is another."""
    torch.manual_seed(derived_seed(seed))
    generator = build_generator(params)
    if start is None:
        generator.load_encoder_weights()
        return generator
    trained = load_generator(start)
    try:
        generator.load_state_dict(trained.state_dict())
    except RuntimeError:
        asked, found = params.description, trained.params.description
        raise UserError(f"{start}: its generator is {found}; the section generator asks for {asked}") from None
    return generator


def code_sha256() -> str:
    """Identifies torch, timm and the modules of recolor that are imported: an edit of the report loses no checkpoint."""
    modules = sorted(name for name in sys.modules if name.startswith("recolor."))
    sources = [file_sha256(Path(sys.modules[name].__file__ or "")) for name in modules]
    return hashlib.sha256(json.dumps([torch.__version__, version("timm"), sources]).encode()).hexdigest()


def run_key(inputs: Mapping[str, Any]) -> str:
    """A hash of all that the result of a run depends on: `inputs`, with the settings that were read as `params.yaml`.

    Without sample_epochs, and without epochs where no schedule depends on it.
    """
    settings = {name: value for name, value in inputs["params.yaml"].items() if name != "train.sample_epochs"}
    if "train" in settings:
        ignored = {"sample_epochs"} | (set() if settings["train"]["decay_epochs"] else {"epochs"})
        settings["train"] = {key: value for key, value in settings["train"].items() if key not in ignored}
    return hashlib.sha256(json.dumps({**inputs, "params.yaml": settings}).encode()).hexdigest()[:16]


def check_same_everywhere(inputs: Mapping[str, Any], distributed: DistributedContext) -> None:
    """Raises UserError where the machines have copies of their own that differ: each would train another model."""
    everywhere = distributed.all_gather(dict(inputs))
    for rank, theirs in enumerate(everywhere):
        for name, value in everywhere[0].items():
            if theirs[name] != value:
                where = f"process {rank} differs from process 0"
                raise UserError(
                    f"{name}: not the same on all machines ({where}); copy what process 0 has to the others"
                )


def lock(checkpoints: Checkpoints, distributed: DistributedContext, log: Callable[[str], None], wait: bool) -> None:
    """Locks the checkpoints until the process ends. While another process has locked them: UserError, unless `wait`."""
    logged = False
    while holder := distributed.broadcast(checkpoints.take() if distributed.is_main else None):
        line = f"process {holder} is training this very model already"
        if not wait:
            raise UserError(f"{line}; wait for it, or stop it")
        if distributed.is_main and not logged:
            log(f"{line}: waiting for it to end")
        logged = True
        time.sleep(1)


def epoch_writer(
    live: Path, samples: Path, cache: Path, params: TrainParams
) -> Callable[[list[dict[str, Any]], Generator], None]:
    """For `train` to call after each epoch: writes the history as the file `live`, and every `sample_epochs` a picture into
    the folder `samples`, of test photos of `cache` in grey, coloured and as they are."""
    cached = CachedPhotos(cache, "test")
    photos = cached[range(min(SAMPLES, len(cached)))]

    def write(history: list[dict[str, Any]], generator: Generator) -> None:
        write_rows(live, HISTORY, history, "the history")
        epoch = len(history)
        if epoch % params.sample_epochs == 0 or epoch == params.epochs:
            training, device = generator.training, next(generator.parameters()).device
            versions = coloured_arrays(photos.to(device), {"coloured": generator.eval()})
            generator.train(training)
            grid = np.vstack([np.hstack(list(versions[name])) for name in (GREY, "coloured", TRUTH)])
            with atomic_file(samples / f"epoch-{epoch:03d}.png", "a picture") as path:
                Image.fromarray(grid).save(path, "PNG")

    return write
