"""A training without a step of the generator is refused, and each change that the error names helps."""

from pathlib import Path

import pandas as pd
import pytest

from recolor.core.errors import UserError
from stages import check_batch_size, paths


@pytest.fixture
def cache(params_file: Path, set_param, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 photos to train on; two epochs of two batches of 6 are one batch too few for the critic's 5 steps."""
    monkeypatch.chdir(params_file.parent)
    paths.cache("mine").mkdir(parents=True)
    table = pd.DataFrame({"split": ["train"] * 12 + ["test"] * 3})
    table.to_csv(paths.cache("mine") / "manifest.csv", index=False)
    for key, value in (("wgan.n_critic", 5), ("train.epochs", 2), ("train.batch_size", 6)):
        set_param(f"paper.{key}", value)


def test_too_few_batches_for_a_generator_step_are_refused(cache: None) -> None:
    with pytest.raises(UserError, match=r"paper\.wgan\.n_critic: got 5.* 4 batches"):
        check_batch_size.main("mine")
    assert not paths.batch_checked("mine").exists()


@pytest.mark.parametrize(("key", "value"), [("wgan.n_critic", 4), ("train.epochs", 3), ("train.batch_size", 4)])
def test_each_advised_change_helps(cache: None, set_param, key: str, value: int) -> None:
    set_param(f"paper.{key}", value)
    check_batch_size.main("mine")
    assert paths.batch_checked("mine").exists()


def test_a_batch_larger_than_the_dataset_is_refused(cache: None, set_param) -> None:
    set_param("paper.train.batch_size", 13)
    with pytest.raises(UserError, match=r"paper\.train\.batch_size: got 13.* 12, the photos"):
        check_batch_size.main("mine")
