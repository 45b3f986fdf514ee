"""`recolor.inference` needs the base installation only."""

import subprocess
import sys

EXTRAS = [
    *("accelerate", "cleanfid", "dvc", "gradio", "matplotlib", "onnx", "onnxruntime", "onnxscript", "pandas"),
    *("playwright", "pytest", "torch_fidelity", "torchmetrics"),
]


def test_photos_are_coloured_without_the_extras(tmp_path, tiny_model) -> None:
    """None in sys.modules makes an import fail as if the package were not installed."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
from PIL import Image
from recolor.inference import Colorizer
from recolor.inference.files import colorize_files
from recolor.inference.plan import plan
from pathlib import Path
Image.new("L", (50, 40), 120).save("photo.png")
[job] = colorize_files(Colorizer.load({str(tiny_model)!r}, "cpu"), plan([Path("photo.png")]))
assert not job.problem, job.problem
assert Image.open(job.target).size == (50, 40)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
