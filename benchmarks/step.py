"""The training step: the textbook's, with torch's switches, and recolor's; the machine's ceiling; peak memory."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ours, textbook
from benchmarks.measuring import NO_TIME, Budget, Sizes, Worker, in_turn, peak_memory
from benchmarks.table import Row
from recolor.models.generators import build_generator

GPU = torch.cuda.is_available()
TURN = 20 if GPU else 1  # steps between two looks at the clock: on a GPU the host runs ahead
CEILING_REPEATS = 3  # of each matrix product: the median of each, so that no lucky timing is the ceiling
SMALL_BATCH = 4
NO_UNITS = "no bf16 units here"
FIRST = "first"  # the side that all others of a group are compared with
Candidates = Mapping[str, Callable[[], Any]]
Workers = Callable[
    [int, Any], Worker
]  # 0 for the first side, which keeps its process, and 1; and the block they run in


@dataclass(frozen=True)
class Side:
    """One way of taking a step; `missing` is why it is not measured here."""

    name: str
    precision: str
    make: Callable[..., Candidates]
    settings: tuple[Any, ...] = ()
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    missing: str = ""


@dataclass(frozen=True)
class Group:
    """Sides that take the same step. The first is the textbook's; the others are measured in turn with it."""

    name: str
    steps: int  # in a round
    flops: float | None  # a photo
    sides: list[Side]


def rows(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """Speeds on a batch that is in memory already; a WGAN's round holds one generator step."""
    budget = Budget(seconds, sum(len(group.sides) for group in groups(sizes)))
    device = ours.device()
    ceilings: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "bf16" and ours.precision() == "fp32":
            yield Row("ceiling", "products of large matrices, bf16", None, "TFLOP/s", note=NO_UNITS)
            continue
        with ours.as_in_training():
            ceilings[name] = ceiling(device, dtype, sizes.matrices)
        yield Row("ceiling", f"products of large matrices, {name}", ceilings[name] / 1e12, "TFLOP/s")

    expected = sizes.batch * gan_flops(sizes) / (ceilings["fp32"] / 2)  # of the textbook's step, in seconds
    if expected > seconds / 40 and sizes.batch > SMALL_BATCH:
        sizes = dataclasses.replace(sizes, batch=SMALL_BATCH)
    with ExitStack() as stack:
        workers: Workers = functools.cache(lambda _, within: stack.enter_context(Worker(sizes, within)))
        for group in groups(sizes):
            yield from measure(group, sizes, budget, ceilings, workers)


def groups(sizes: Sizes) -> list[Group]:
    """What is measured, the comparisons before the switches."""
    auto, own = ours.precision(), ours.as_in_training
    no_units = "" if auto == "bf16" else NO_UNITS
    gan = [Side("textbook", "fp32", _textbook_gan), Side("recolor", auto, _own, ("gan", auto), own)]
    wgan = [Side("textbook", "fp32", _textbook_wgan), Side("recolor", auto, _own, ("wgan", auto), own)]
    switches = [
        Side("textbook", "fp32", _textbook_gan),
        Side("recolor", "fp32", _own, ("gan", "fp32"), own, "measured above" if auto == "fp32" else ""),
        Side("textbook, channels_last", "fp32", _textbook_gan, (True,)),
        Side("textbook, channels_last", "bf16", _textbook_gan, (True, True), missing=no_units),
        Side("recolor, gradients at the skips as views", auto, _own, ("gan", auto), ours.with_views),
    ]
    if GPU:
        missing = "" if sizes.compiled else "not in a quick run"
        switches.append(Side("recolor, compiled", auto, _own, ("gan", auto, True), own, missing))
    else:
        switches.append(Side("recolor, heap not retained", auto, _own, ("gan", auto)))
        switches.append(Side("textbook, heap retained", "fp32", _textbook_gan, (), ours.retain_heap))
    modern_l1 = [
        Side("textbook", "fp32", _textbook_l1),
        Side("recolor", auto, _own, ("l1", auto, False, "modern"), own),
    ]
    modern_gan = [
        Side("textbook", "fp32", _textbook_modern_gan),
        Side("recolor", auto, _own, ("gan", auto, False, "modern"), own),
    ]
    return [
        Group("GAN step", TURN, gan_flops(sizes), gan),
        Group("WGAN step", TURN * ours.objective_params("wgan").n_critic, None, wgan),
        Group("modern recipe, L1 step", TURN, None, modern_l1),
        Group("modern recipe, GAN step", TURN, None, modern_gan),
        Group("GAN step, switches", TURN, gan_flops(sizes), switches),
    ]


def measure(group: Group, sizes: Sizes, budget: Budget, ceilings: dict[str, float], workers: Workers) -> Iterator[Row]:
    """The rows of a group, each as soon as it is known."""
    part, photos = f"{group.name}, batch {sizes.batch}", group.steps * sizes.batch
    peaks: list[Row] = []
    first: Candidates = {}
    for number, side in enumerate(group.sides):
        share, what = budget.share(), f"{side.name}, {side.precision}"
        if missing := side.missing or ("" if share > 0 else NO_TIME):
            yield Row(part, what, None, "photos/s", note=missing)
            continue
        candidates = workers(min(number, 1), side.within).make(side.make, *side.settings)
        first = first or candidates
        both = {FIRST: first["steps"], what: candidates["steps"]} if number else {FIRST: first["steps"]}
        timings = in_turn(both, sizes.repeats, share, warm=[FIRST] if number else [])
        seconds = timings.medians[what if number else FIRST]
        speed, gain = photos / seconds, timings.medians[FIRST] / seconds
        ceiling = group.flops * speed / ceilings[side.precision] if group.flops else None
        yield Row(part, what, speed, "photos/s", gain, ceiling, timings.note(sizes.repeats))
        if sizes.children and group.name == "GAN step":
            peaks.append(Row(f"{part}, peak memory", what, candidates["peak"](), "GB"))
    yield from peaks


def ceiling(device: torch.device, dtype: torch.dtype, matrices: tuple[int, ...]) -> float:
    """FLOP/s of the quickest matrix product found: in several sizes, as matmul and as 1x1 convolution.

    On CPUs those are two libraries, and which one is quicker depends on the processor's maker.
    """
    speeds = []
    for side in matrices if device.type == "cpu" else [4 * side for side in matrices]:
        one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        pixels = one.view(16, side, -1, 1).contiguous(memory_format=torch.channels_last)
        kernel = other.view(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
        times = max(1, max(matrices) ** 3 // side**3)
        for product in (lambda: one @ other, lambda: F.conv2d(pixels, kernel)):  # noqa: B023
            with torch.no_grad():
                taken = in_turn({"": lambda: [product() for _ in range(times)]}, CEILING_REPEATS)  # noqa: B023
            speeds.append(2 * side**3 * times / taken.medians[""])
    return max(speeds)


def gan_flops(sizes: Sizes) -> float:
    """Of a GAN step, a photo: 86 G for the default networks. A backward pass takes twice the forward pass."""

    def forward(network: nn.Module, channels: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.empty(1, channels, sizes.size, sizes.size))
        return counter.get_total_flops()

    with torch.device("meta"):  # shapes without numbers
        generator = forward(textbook.unet(sizes.filters, sizes.downs), 1)
        critic = forward(textbook.patchgan(sizes.filters, 3), 3)
    return 3 * generator + 8 * critic  # the critic: real and fake with weights' gradients, and the generator's fake


def _textbook_gan(sizes: Sizes, channels_last: bool = False, bf16: bool = False) -> Candidates:
    networks = textbook.unet(sizes.filters, sizes.downs), textbook.patchgan(sizes.filters, 3)
    return _textbook(sizes, textbook.Trainer(*networks, ours.device(), channels_last, bf16), TURN)


def _textbook_wgan(sizes: Sizes) -> Candidates:
    networks = textbook.unet(sizes.filters, sizes.downs), textbook.patchgan(sizes.filters, 3)
    trainer = textbook.WassersteinTrainer(*networks, ours.device())
    return _textbook(sizes, trainer, TURN * trainer.n_critic)


def _textbook_l1(sizes: Sizes) -> Candidates:
    generator = build_generator(ours.networks(sizes, "modern")[0])
    return _textbook(sizes, textbook.L1Trainer(generator, ours.device()), TURN)


def _textbook_modern_gan(sizes: Sizes) -> Candidates:
    params, discriminator = ours.networks(sizes, "modern")
    critic = nn.Sequential(nn.AvgPool2d(round(1 / discriminator.scale)), textbook.patchgan(sizes.filters, 3))
    trainer = textbook.Trainer(build_generator(params), critic, ours.device())
    return _textbook(sizes, trainer, TURN)


def _textbook(sizes: Sizes, trainer: textbook.Trainer | textbook.L1Trainer, steps: int) -> Candidates:
    lightness, ab = _halves(sizes)
    return {"steps": lambda: [trainer.step(lightness, ab) for _ in range(steps)], "peak": peak_memory}


def _own(sizes: Sizes, model: str, precision: str, compiled: bool = False, recipe: str = "paper") -> Candidates:
    trainer = ours.Trainer(sizes, model, precision, compiled, recipe)
    real = ours.random_batch(sizes).to(ours.device())
    steps = TURN * trainer.params.n_critic
    return {"steps": lambda: [trainer.step(real) for _ in range(steps)], "peak": peak_memory}


def _halves(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """L and ab of the batch, on the device."""
    real = ours.random_batch(sizes).to(ours.device())
    return real[:, :1].contiguous(), real[:, 1:].contiguous()
