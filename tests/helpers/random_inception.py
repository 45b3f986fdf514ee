"""Inception v3 in the two formats of its published weights, with random ones: the real architecture, offline."""

from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from recolor.evaluation.inception import CLEAN_FID, TORCH_FIDELITY


class Untrained(FeatureExtractorInceptionV3):
    """torch-fidelity's network as it is before it loads its weights, which it otherwise always does."""

    def load_state_dict(self, *_, **__) -> None:
        generator = torch.Generator().manual_seed(0)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # He et al. 2015: the signal keeps its size through the layers, so that features differ between pictures.
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
        # Large logits: an Inception score well above 1.
        nn.init.normal_(self.fc.weight, 0, 0.2, generator=generator)


class Layers(nn.Module):
    """(B, 3, 299, 299) in [-1, 1] to (B, 2048): what clean-fid calls of its file."""

    def __init__(self, network: FeatureExtractorInceptionV3) -> None:
        super().__init__()
        names = [name for name, _ in network.named_children() if name != "fc"]
        self.blocks = nn.Sequential(*(getattr(network, name) for name in names))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.blocks(picture).flatten(1)


class File(nn.Module):
    """The module that clean-fid's file holds: `layers`, and a forward of its own that clean-fid's clean mode leaves alone."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, picture: torch.Tensor, return_features: bool = True) -> torch.Tensor:
        return self.layers((picture - 128) / 128)


def write(folder: Path) -> None:
    """Writes both files, under their published names and with the same weights."""
    nothing = folder / "nothing.pth"
    torch.save({}, nothing)
    network = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(nothing))
    nothing.unlink()
    torch.save(network.state_dict(), folder / TORCH_FIDELITY)
    layers = torch.jit.trace(Layers(network).eval(), torch.zeros(1, 3, 299, 299), check_trace=False)
    torch.jit.script(File(layers).eval()).save(folder / CLEAN_FID)
