"""The textbook way to colour photos with a GAN, in few lines, as most people write it: what recolor is measured against.

A nested U-Net and a PatchGAN as in pix2pix, with the same weights and arithmetic as recolor's; a Dataset that opens, resizes
and converts the file in `__getitem__`, again in every epoch; float32, channels first, eager.
"""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision import transforms


class PhotoFolder(Dataset):
    def __init__(self, folder: Path, size: int) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        photo = Image.open(self.paths[index]).convert("RGB")
        lab = rgb2lab(np.array(self.transform(photo))).astype("float32")
        lab = transforms.functional.to_tensor(lab)
        return lab[[0]] / 50 - 1, lab[[1, 2]] / 110


class Level(nn.Module):
    """A level of the U-Net, which contains the levels below it."""

    def __init__(self, channels: int, width: int, inside: nn.Module | None, dropout: float = 0) -> None:
        super().__init__()
        layers = [nn.LeakyReLU(0.2, True), nn.Conv2d(channels, width, 4, 2, 1, bias=inside is None)]
        if inside is not None:
            layers += [nn.BatchNorm2d(width), inside]
        up = nn.ConvTranspose2d(width if inside is None else width * 2, channels, 4, 2, 1, bias=False)
        layers += [nn.ReLU(True), up, nn.BatchNorm2d(channels)]
        self.model = nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1)


def unet(filters: int, downs: int) -> nn.Module:
    widths = [filters * min(2**level, 8) for level in range(downs)]
    inside = None
    for level in range(downs - 1, 0, -1):
        inside = Level(widths[level - 1], widths[level], inside, dropout=0.5 if level > downs - 4 else 0)
    first, last = nn.Conv2d(1, filters, 4, 2, 1), nn.ConvTranspose2d(filters * 2, 2, 4, 2, 1)
    return nn.Sequential(first, inside, nn.ReLU(True), last, nn.Tanh()).apply(initialise)


def patchgan(filters: int, downs: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, filters, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    channels = filters
    for level in range(1, downs + 1):
        width = filters * min(2**level, 8)
        layers += [nn.Conv2d(channels, width, 4, 2 if level < downs else 1, 1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.LeakyReLU(0.2, True)]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1)).apply(initialise)


def initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.02)


class Trainer:
    """The GAN's step, with the two switches that many people know of."""

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        device: torch.device,
        channels_last: bool = False,
        bf16: bool = False,
    ) -> None:
        form = torch.channels_last if channels_last else torch.contiguous_format
        self.device, self.form, self.bf16 = device, form, bf16
        self.generator = generator.to(device, memory_format=form)
        self.critic = critic.to(device, memory_format=form)
        self.bce, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
        self.of_generator = torch.optim.Adam(self.generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.of_critic = torch.optim.Adam(self.critic.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def step(self, lightness: Tensor, ab: Tensor) -> None:
        lightness = lightness.to(self.device, memory_format=self.form)
        ab = ab.to(self.device, memory_format=self.form)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            fake = self.generator(lightness)
            fake_pair, real_pair = torch.cat([lightness, fake], 1), torch.cat([lightness, ab], 1)

            self.critic.requires_grad_(True)
            self.of_critic.zero_grad()
            on_fake, on_real = self.critic(fake_pair.detach()), self.critic(real_pair)
            wrong = self.bce(on_fake, torch.zeros_like(on_fake)), self.bce(on_real, torch.ones_like(on_real))
        ((wrong[0] + wrong[1]) * 0.5).backward()
        self.of_critic.step()

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            self.critic.requires_grad_(False)
            self.of_generator.zero_grad()
            on_fake = self.critic(fake_pair)
            loss = self.bce(on_fake, torch.ones_like(on_fake)) + 100 * self.l1(fake, ab)
        loss.backward()
        self.of_generator.step()
        loss.item()  # for the progress bar


class WassersteinTrainer(Trainer):
    """The WGAN's step: weights clipped, and a generator step after every five of the critic."""

    steps, n_critic = 0, 5

    def __init__(self, generator: nn.Module, critic: nn.Module, device: torch.device) -> None:
        super().__init__(generator, critic, device)
        self.of_generator = torch.optim.RMSprop(self.generator.parameters(), lr=5e-5)
        self.of_critic = torch.optim.RMSprop(self.critic.parameters(), lr=5e-5)

    def step(self, lightness: Tensor, ab: Tensor) -> None:
        lightness, ab = lightness.to(self.device), ab.to(self.device)
        self.critic.requires_grad_(True)
        self.of_critic.zero_grad()
        fake = self.generator(lightness).detach()
        on_fake = self.critic(torch.cat([lightness, fake], 1)).mean()
        loss = on_fake - self.critic(torch.cat([lightness, ab], 1)).mean()
        loss.backward()
        self.of_critic.step()
        for weight in self.critic.parameters():
            weight.data.clamp_(-0.01, 0.01)
        loss.item()
        self.steps += 1
        if self.steps % self.n_critic == 0:
            self.critic.requires_grad_(False)
            self.of_generator.zero_grad()
            fake = self.generator(lightness)
            loss = -self.critic(torch.cat([lightness, fake], 1)).mean() + 100 * self.l1(fake, ab)
            loss.backward()
            self.of_generator.step()


class L1Trainer:
    """A generator on its own, trained for the mean absolute error, with AdamW."""

    def __init__(self, generator: nn.Module, device: torch.device) -> None:
        self.device, self.generator, self.l1 = device, generator.to(device), nn.L1Loss()
        self.optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-3)

    def step(self, lightness: Tensor, ab: Tensor) -> None:
        lightness, ab = lightness.to(self.device), ab.to(self.device)
        self.optimizer.zero_grad()
        loss = self.l1(self.generator(lightness), ab)
        loss.backward()
        self.optimizer.step()
        loss.item()


def batches(folder: Path, size: int, batch: int, workers: int) -> Generator[tuple[Tensor, Tensor]]:
    """Endless batches of L and ab."""
    loader = DataLoader(
        PhotoFolder(folder, size),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def evaluate(folder: Path, size: int, count: int, generators: list[nn.Module], weights: Path | None) -> None:
    """PSNR, SSIM and what FID is taken of, for the first `count` photos and each generator, a photo at a time."""
    dataset = PhotoFolder(folder, size)
    for generator in generators:
        fid = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(weights)) if weights else None
        for index in range(count):
            lightness, ab = dataset[index]
            with torch.no_grad():
                fake_ab = generator(lightness[None])[0]
            real, fake = rgb(lightness, ab), rgb(lightness, fake_ab)
            peak_signal_noise_ratio(real, fake)
            structural_similarity(real, fake, channel_axis=2)
            for picture, is_real in ((real, True), (fake, False)):
                if fid is not None:
                    fid.update(torch.from_numpy(picture).permute(2, 0, 1)[None], real=is_real)


def rgb(lightness: Tensor, ab: Tensor) -> np.ndarray:
    lab = torch.cat([(lightness + 1) * 50, ab * 110]).permute(1, 2, 0).numpy()
    return (lab2rgb(lab) * 255).astype(np.uint8)
