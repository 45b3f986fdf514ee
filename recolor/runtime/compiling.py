"""torch.compile for a training run: whether it repays itself, and going on without it where it fails."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recolor.models.generators import build_generator
from recolor.models.objectives import ObjectiveParams
from recolor.models.patchgan import DiscriminatorParams, PatchDiscriminator
from recolor.runtime.distributed import DistributedContext

Compile = Literal["auto", True, False]

COST = 60.0  # seconds: 40 were measured on 2 cores of an AMD EPYC (Zen 5), once for a run
# Per kind of machine: the share of a step's time that compiling saves, and FLOP/s that a step roughly runs at. On the EPYC
# (no AMX) compiled steps were no quicker: most of a step is in convolutions, which compiling leaves alone. For AMX and CUDA
# the share is an estimate: there the convolutions are quicker, and what lies between them weighs more.
SAVED_AND_SPEED = {"cpu": (0.0, 0.6e12), "cpu with AMX": (0.2, 0.6e12), "cuda": (0.2, 1e14), "mps": (0.0, 1e13)}
UNKNOWN = (0.0, 1e13)  # any other accelerator: nobody has measured that compiling saves anything there


def compile_where_it_pays(
    networks: list[nn.Module],
    wanted: Compile,
    device: torch.device,
    flops: float,
    rehearse: Callable[[], None],
    distributed: DistributedContext,
    say: Callable[[str], None],
) -> None:
    """Compiles `networks` in place. `flops` of the whole run: a resumed one must decide as it did before.

    `rehearse` calls the networks forwards and backwards as training will, and leaves nothing behind: they are compiled in it.
    What auto decides is said in one line, and so is a compiler that is missing or fails, after which nothing is compiled.
    """
    if wanted == "auto":
        saved, speed = SAVED_AND_SPEED.get(_kind(device), UNKNOWN)
        seconds = flops / speed
        wanted = saved * seconds > COST
        estimate = f"saves about {saved * seconds:.0f} of {seconds:.0f} s" if saved else "saves nothing"
        say(f"runtime.compile auto: {'' if wanted else 'not '}compiled; it takes {COST:.0f} s and {estimate} here")
    if not wanted:
        return
    # Something small first: it fails before anything that one process would wait for another in.
    reason = _failure(lambda: _compile_something_small(device), distributed)
    if not reason:
        for network in networks:
            network.compile()
        if reason := _failure(rehearse, distributed):
            for network in networks:
                network._compiled_call_impl = None  # as before `compile`
    if reason:
        say(f"runtime.compile: going on uncompiled, because compiling fails here: {reason}")


def flops_per_photo(generator: Any, discriminator: DiscriminatorParams, recipe: ObjectiveParams, size: int) -> float:
    """FLOP of training on one photo once, without a penalty: a backward pass is twice a forward one, or once without weights.

    The default GAN's are 86 G at 256x256.
    """
    turns = 1 / recipe.n_critic  # of the generator, per step
    with torch.device("meta"):  # shapes without numbers
        critic = _forward_flops(PatchDiscriminator(discriminator, recipe.critic_norm), torch.empty(1, 3, size, size))
        generated = _forward_flops(build_generator(generator), torch.empty(1, 1, size, size))
    if recipe.adversarial_weight == 0:
        return 3 * turns * generated
    return (1 + 2 * turns) * generated + (6 + 2 * turns) * critic  # the critic: real, fake, and the generator's fake


def _forward_flops(network: nn.Module, photo: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(photo)
    return counter.get_total_flops()


def _kind(device: torch.device) -> str:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "cpu with AMX" if device.type == "cpu" and capabilities.get("amx_bf16") else device.type


def _compile_something_small(device: torch.device) -> None:
    weight = torch.ones(8, device=device, requires_grad=True)
    torch.compile(lambda x: (x * 2).sin().sum())(weight).backward()


def _failure(attempt: Callable[[], None], distributed: DistributedContext) -> str:
    """What goes wrong in `attempt` in any of the processes, in one line; "" where nothing does. All compile, or none, where
    processes fail alike, as on machines of one kind: in a rehearsal they wait for each other."""
    reason = ""
    try:
        attempt()
    except Exception as error:  # a missing compiler, headers, Triton, a GPU too old: each has an error of its own
        cause = getattr(error, "inner_exception", error)  # what a back end raised
        reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
    return next(filter(None, distributed.all_gather(reason)), "")
