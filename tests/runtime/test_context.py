"""Settings of the machine for a run, and their former values after it."""

import subprocess
import sys

import pytest
import torch

from recolor.core.devices import find_device
from recolor.core.errors import UserError
from recolor.runtime.context import RuntimeContext, bf16_in_hardware

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx2": True, "avx512_bf16": False}, False), ({"avx512_bf16": True}, True)]
)
def test_auto_is_bf16_where_the_processor_multiplies_it(
    capabilities: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert bf16_in_hardware(CPU) is expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not bf16_in_hardware(CPU)


# Freed tensors of 36 MB, whose pages the kernel has to clear again when malloc has given them back: counted, not timed.
KEPT = """
import resource
import torch
from recolor.runtime.context import retain_heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(64):
        torch.ones(9 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

before = faults()
with retain_heap():
    torch.ones(9 * 2**20)
    within, held = faults(), resident()
print(before, within, held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc, the C library of most Linux systems")
def test_memory_is_kept_from_step_to_step_and_given_back_afterwards() -> None:
    ran = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    before, within, given_back = map(int, ran.stdout.split())
    assert within < before / 4  # some take new pages: a small block is where the last tensor was
    assert given_back > 30 * 2**20  # a tensor's worth


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_an_unavailable_device_is_an_error_that_names_the_setting() -> None:
    for device in ("auto", "cpu"):
        find_device(device, "runtime.device")
    with pytest.raises(UserError) as caught:
        RuntimeContext.find("cuda")
    assert str(caught.value).startswith("runtime.device: got cuda")
