"""The training loop. A step's random numbers come from seed and step, so a resumed run reaches an uninterrupted one's bits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from recolor.core.errors import UserError
from recolor.core.iterators import progress_bar
from recolor.core.params import Section, Seed
from recolor.core.signals import stop_flag
from recolor.dataset.augment import AugmentParams, augment
from recolor.dataset.batches import BatchLoader
from recolor.dataset.shards import CachedPhotos
from recolor.models.layers import Generator
from recolor.runtime.context import RuntimeContext, RuntimeParams, determinism, retain_heap
from recolor.training.checkpoints import Checkpoints
from recolor.training.methods import Method
from recolor.training.recorder import RunRecorder

Count = Annotated[int, Field(ge=1, strict=True)]
Decay = Annotated[float, Field(ge=0, lt=1, strict=True)]


class TrainParams(Section, frozen=True):
    """Section `train`: what all trainings of a recipe share."""

    seed: Seed
    epochs: int = Field(ge=1, le=1_000_000)
    batch_size: Count
    decay_epochs: int = Field(ge=0)
    ema: Decay
    sample_epochs: Count


class Interrupted(UserError):
    """Training was stopped by a signal and has saved its state."""


@dataclass(frozen=True)
class Trained:
    """The result of a run: the generator in eval mode on the CPU, a row of history and one of timings for each epoch."""

    generator: Generator
    history: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    machine: str  # device, precision, processes


@retain_heap()
def train(
    method: Method,
    generator: Generator,
    photos: CachedPhotos,
    params: TrainParams,
    augment_params: AugmentParams,
    runtime: RuntimeParams,
    context: RuntimeContext,
    checkpoints: Checkpoints,
    log: Callable[[str], None] = print,
    watch: Callable[[list[dict[str, Any]], Generator], None] | None = None,
) -> Trained:
    """Trains `generator` on `photos` by `method`, up to `params.epochs`; continues from the newest of `checkpoints`.

    Several processes train on their shares of every batch, and the main one logs and saves. The caller holds the lock of
    `checkpoints`. A run that has `params.epochs` already ends at once. `watch` is called after each epoch, in the main process,
    with the history and the generator that would be kept. Raises UserError, Diverged, and Interrupted after a stop signal.
    """
    distributed = context.distributed
    log = log if distributed.is_main else lambda line: None
    loader = BatchLoader(
        photos,
        params.batch_size,
        augment_params.flip,
        params.seed,
        device=context.device,
        on_device=runtime.data_on_device,
        rank=distributed.rank,
        world_size=distributed.world_size,
    )
    torch.manual_seed(derived_seed(params.seed))
    state = method.start(generator, context, params.ema)
    distributed.sync_batch_norm(state.networks.values())

    with determinism(runtime.deterministic), stop_flag() as stop_signal:
        context.compile(state.networks.values(), runtime.compile, log)
        state.resume(checkpoints, distributed, log)
        progress = state.progress
        recorder = RunRecorder(state, checkpoints, distributed, runtime.checkpoint_minutes)
        for epoch in range(progress.epoch, params.epochs):
            batches: Iterable[Tensor] = loader.epoch(epoch, progress.batch)
            if distributed.is_main:
                batches = progress_bar(batches, loader.steps - progress.batch, f"epoch {epoch + 1}/{params.epochs}")
            for real in recorder.timed(batches):
                step_key = (params.seed, progress.step, distributed.rank)
                torch.manual_seed(derived_seed(*step_key))  # dropout and a gradient penalty draw from it
                state.scale_learning_rates(method.rate_factor(progress.step, params.epochs, loader.steps))
                loss_terms = method.step(state, augment(real, augment_params, step_key), context)
                recorder.end_step(loss_terms)
                signal = stop_signal()
                if recorder.save_if_due(stop=bool(signal)):
                    raise Interrupted(
                        f"stopped by {signal or 'a signal to another process'} at step {progress.step}, in epoch "
                        f"{epoch + 1} of {params.epochs}; `dvc repro` continues from there"
                    )
            log(recorder.end_epoch(params.batch_size))
            recorder.save_after_epoch(last=progress.epoch == params.epochs)
            if watch and distributed.is_main:
                watch(progress.history, state.result)
    assert progress.generator_steps  # stage check_batch_size refuses such settings
    return Trained(state.result.cpu().eval(), progress.history, progress.timings, f"{context}, {distributed}")


def derived_seed(*key: int) -> int:
    """One seed from several numbers; a sum would repeat seeds. Zeros at the end do not count: (42, 0, 0) is (42,) here."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
