"""The training step: textbook's, each switch on its own, ours; the machine's ceiling; peak memory."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import ours, textbook
from benchmarks.measuring import Row, Sizes, apart, in_turn, peak_memory, synchronise
from recolor.runtime.compiling import flops_per_photo
from recolor.runtime.devices import Machine, Precision, memory_kept

PART = "training step"
TURN = 20 if torch.cuda.is_available() else 1  # steps between two looks at the clock: on a GPU the host runs ahead
REPEATS = 3  # of each product of matrices: the quickest of them is taken by its median, not by one lucky timing
TEXTBOOK = ("textbook", "fp32")
Variants = dict[tuple[str, str], Callable[[], None]]  # by name and precision


def rows(sizes: Sizes) -> list[Row]:
    """Speeds on a batch that is in memory already: GAN steps, and WGAN steps in rounds that hold one generator step."""
    speeds, ceilings = _gan(sizes)
    flops = flops_per_photo(*ours.networks(sizes), ours.recipe("gan"), sizes.size)
    found = [
        Row("ceiling", f"products of large matrices, {name}", value / 1e12, "TFLOP/s")
        for name, value in ceilings.items()
    ]
    for (name, precision), speed in speeds.items():
        share = flops * speed / ceilings[precision]
        found.append(Row(PART, f"GAN, {name}, {precision}", speed, "photos/s", speed / speeds[TEXTBOOK], share))
    minutes = 100 * 4250 / speeds["recolor", ours.precision()] / 60
    found.append(Row(PART, "so the GAN of the paper's COCO run, 100 epochs of 4,250 photos, takes", minutes, "minutes"))
    return found + _wgan(sizes) + _memory(sizes)


def _gan(sizes: Sizes) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Photos a second by variant and precision, and FLOP/s of the ceiling by precision, all measured in turn."""
    device, ceilings = Machine.find().device, {"fp32": [], "bf16": []}  # type: ignore[var-annotated]

    @memory_kept()
    def measure_ceilings() -> None:
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            ceilings[name].append(ceiling(device, dtype, sizes.matrices))

    with (
        apart(sizes, _usual_gan) as usual,
        apart(sizes, _usual_gan_keeping, within=memory_kept) as keeping,
        apart(sizes, _own_gan, within=ours.as_in_training) as own,
    ):
        variants = {**usual, **keeping, **own}
        seconds = in_turn({**variants, "ceilings": measure_ceilings}, sizes.repeats)
    speeds = {variant: TURN * sizes.batch / seconds[variant] for variant in variants}
    return speeds, {
        name: statistics.median(measured[1:]) for name, measured in ceilings.items()
    }  # the first: to warm up


def _usual_gan(sizes: Sizes) -> Variants:
    plain, last = (_textbook(sizes, channels_last) for channels_last in (False, True))
    return {
        TEXTBOOK: _usual(sizes, plain),
        ("textbook with channels_last", "fp32"): _usual(sizes, last),
        ("textbook with autocast", "bf16"): _usual(sizes, plain, bf16=True),
        ("textbook with both", "bf16"): _usual(sizes, last, bf16=True),
    }


def _usual_gan_keeping(sizes: Sizes) -> Variants:
    plain, last = (_textbook(sizes, channels_last) for channels_last in (False, True))
    return {
        ("textbook with freed memory kept", "fp32"): _usual(sizes, plain),
        ("textbook with freed memory kept and channels_last", "fp32"): _usual(sizes, last),
        ("textbook with all three", "bf16"): _usual(sizes, last, bf16=True),
    }


def _textbook(sizes: Sizes, channels_last: bool = False) -> textbook.Trainer:
    return textbook.Trainer(sizes.filters, sizes.downs, Machine.find().device, channels_last)


def _usual(sizes: Sizes, trainer: textbook.Trainer, bf16: bool = False) -> Callable[[], None]:
    lightness, ab = _halves(sizes)

    def step() -> None:
        trainer.bf16 = bf16
        for _ in range(TURN):
            trainer.step(lightness, ab)

    return step


def _own_gan(sizes: Sizes) -> Variants:
    trainer = ours.Trainer(sizes, "gan")
    variants = {("recolor", "fp32"): _own(sizes, trainer, "fp32"), ("recolor", ours.precision()): _own(sizes, trainer)}
    for switch in ours.SWITCHES:
        variants[f"recolor without {switch}", ours.precision()] = _own(sizes, trainer, switch=switch)
    if sizes.compiled:
        variants["recolor, compiled", ours.precision()] = _own(sizes, ours.Trainer(sizes, "gan", compiled=True))
    return variants


def _own(sizes: Sizes, trainer: ours.Trainer, precision: Precision = "auto", switch: str = "") -> Callable[[], None]:
    machine = Machine.find(precision=precision)
    real = ours.random_batch(sizes).to(machine.device)

    def step() -> None:
        trainer.machine = machine
        with ours.without(switch, trainer) if switch else nullcontext():
            for _ in range(TURN):
                trainer.step(real)

    return step


def _halves(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """L and ab of the batch, on the device."""
    real = ours.random_batch(sizes).to(Machine.find().device)
    return real[:, :1].contiguous(), real[:, 1:].contiguous()


def ceiling(device: torch.device, dtype: torch.dtype, matrices: tuple[int, ...]) -> float:
    """FLOP/s of the quickest matrix product found: in several sizes, as matmul and as 1x1 convolution.

    On CPUs those are two libraries: on one maker's processors the same, on another's the second is twice as quick in float32.
    """
    speeds = []
    for side in matrices if device.type == "cpu" else [4 * side for side in matrices]:
        one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        pixels = one.view(16, side, -1, 1).contiguous(memory_format=torch.channels_last)
        kernel = other.view(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
        times = max(1, max(matrices) ** 3 // side**3)
        for product in (lambda: one @ other, lambda: F.conv2d(pixels, kernel)):  # noqa: B023
            with torch.no_grad():
                taken = in_turn({"product": lambda: [product() for _ in range(times)]}, REPEATS)["product"]  # noqa: B023
            speeds.append(2 * side**3 * times / taken)
    return max(speeds)


def _wgan(sizes: Sizes) -> list[Row]:
    with apart(sizes, _usual_wgan) as usual, apart(sizes, _own_wgan, within=ours.as_in_training) as own:
        seconds = in_turn({**usual, **own}, max(1, sizes.repeats // 2))
    photos, first = TURN * sizes.batch * ours.recipe("wgan").n_critic, next(iter(seconds.values()))
    return [Row(PART, f"WGAN, {name}", photos / taken, "photos/s", first / taken) for name, taken in seconds.items()]


def _usual_wgan(sizes: Sizes) -> dict[str, Callable[[], Any]]:
    trainer = textbook.WassersteinTrainer(sizes.filters, sizes.downs, Machine.find().device)
    lightness, ab = _halves(sizes)
    return {"textbook, fp32": lambda: [trainer.step(lightness, ab) for _ in range(TURN * trainer.n_critic)]}


def _own_wgan(sizes: Sizes) -> dict[str, Callable[[], Any]]:
    trainer = ours.Trainer(sizes, "wgan")
    real = ours.random_batch(sizes).to(trainer.machine.device)
    return {f"recolor, {ours.precision()}": lambda: [trainer.step(real) for _ in range(TURN * trainer.recipe.n_critic)]}


def _memory(sizes: Sizes) -> list[Row]:
    """Each in a process of its own: a process's peak cannot be set back."""
    if not sizes.children:
        return []
    peaks = {}
    for side in ("textbook", "recolor"):
        command = [sys.executable, "-m", "benchmarks.step", side, json.dumps(asdict(sizes))]
        peaks[side] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    precisions = {"textbook": "fp32", "recolor": ours.precision()}
    return [
        Row("peak memory", f"of GAN steps, {side}, {precisions[side]}", peak, "GB", peak / peaks["textbook"])
        for side, peak in peaks.items()
    ]


def _peak(side: str, sizes: Sizes) -> float:
    """GB that three GAN steps take: the GPU's where there is one, or else the process's."""
    with nullcontext() if side == "textbook" else ours.as_in_training():
        step = _usual(sizes, _textbook(sizes)) if side == "textbook" else _own(sizes, ours.Trainer(sizes, "gan"))
        for _ in range(3):
            step()
    synchronise()
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else peak_memory() / 1e9


if __name__ == "__main__":
    print(_peak(sys.argv[1], Sizes(**json.loads(sys.argv[2]))))
