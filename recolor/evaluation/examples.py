"""The pictures to look at: for each split and model some photos drawn by the seed, and its best and its worst by PSNR."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor


class Example(NamedTuple):
    """A photo and what a model made of it: (H, W, 3) 8-bit RGB pictures, and their PSNR in dB."""

    psnr: float
    input: NDArray[np.uint8]
    output: NDArray[np.uint8]
    truth: NDArray[np.uint8]


class Examples:
    """Those of one split, picked while its photos go by, so that no more pictures are held than will be shown.

    `fixed` are the same photos for every model, of as many groups as there are: crops of one photo share their group. In a
    split of few photos one may be fixed, best and worst at once.
    """

    def __init__(self, manifest: pd.DataFrame, count: int, seed: int) -> None:
        turns = manifest.sample(frac=1, random_state=seed).groupby("group").cumcount()
        self.fixed = sorted(turns.sort_values(kind="stable").index[:count])
        self.split = manifest["split"].iloc[0]
        self.count = count
        self.held: dict[str, dict[int, Example]] = {}  # by model and row

    def offer(self, model: str, start: int, psnr: NDArray[np.float64], *pictures: Tensor) -> None:
        """A batch of `model`'s, from row `start` of the split on: PSNR, (B,), and input, output and truth, (B, 3, H, W)."""
        held = self.held.get(model, {})
        quality = {row: example.psnr for row, example in held.items()} | dict(enumerate(psnr.tolist(), start))
        ranked = _ranked(quality)
        wanted = {*self.fixed, *ranked[: self.count], *ranked[-self.count :]}
        self.held[model] = {
            row: held[row]
            if row in held
            else Example(quality[row], *(_picture(batch[row - start]) for batch in pictures))
            for row in wanted.intersection(quality)
        }

    def take(self, held: dict[str, dict[int, Example]]) -> None:
        """Adds what another process holds of the same split."""
        for model, examples in held.items():
            self.held.setdefault(model, {}).update(examples)

    def rows(self) -> Iterator[tuple[dict[str, Any], Example]]:
        """Each example to be shown, with its row of examples.csv. `best` and `worst` begin with the very best and worst."""
        for model, held in self.held.items():
            ranked = _ranked({row: example.psnr for row, example in held.items()})
            kinds = {"fixed": self.fixed, "best": ranked[::-1][: self.count], "worst": ranked[: self.count]}
            for kind, rows in kinds.items():
                for row in rows:
                    yield (
                        {"split": self.split, "model": model, "kind": kind, "row": row, "psnr": held[row].psnr},
                        held[row],
                    )


def write_examples(splits: Sequence[Examples], out: Path) -> None:
    """`examples.csv` (split, model, kind, row of the split, psnr, index) and `examples.npz`, whose arrays `input`, `output` and
    `truth`, (N, H, W, 3) 8-bit RGB, hold that example at `index`."""
    rows, examples = zip(*(pair for split in splits for pair in split.rows()), strict=True)
    pd.DataFrame(rows).assign(index=range(len(rows))).to_csv(out / "examples.csv", index=False)
    _, inputs, outputs, truths = map(np.stack, zip(*examples, strict=True))
    np.savez_compressed(out / "examples.npz", input=inputs, output=outputs, truth=truths)


def _ranked(quality: dict[int, float]) -> list[int]:
    """Rows from worst to best, a tie's in their order."""
    return sorted(quality, key=lambda row: (quality[row], row))


def _picture(photo: Tensor) -> NDArray[np.uint8]:
    return photo.permute(1, 2, 0).cpu().contiguous().numpy().copy()
