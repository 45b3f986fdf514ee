"""Runs that are stopped, continued, damaged or diverge."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import (
    GAN,
    METHODS,
    PENALISED,
    PRETRAIN,
    RUNTIME,
    MadePhotos,
    assert_identical,
    run,
    stopped_in_step,
)

from recolor.models.objectives import ObjectiveParams
from recolor.training import recorder
from recolor.training.checkpoints import Checkpoints
from recolor.training.loop import Interrupted
from recolor.training.methods import PretrainParams
from recolor.training.progress import Diverged

pytestmark = pytest.mark.usefixtures("checkpoint_each_epoch")


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("params", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("stop_at", [1, 4, 6])  # mid-epoch, in the second, at the very end
def test_a_stopped_run_continues_to_the_same_weights(
    params: ObjectiveParams | PretrainParams, stop_at: int, ema: float, tmp_path: Path
) -> None:
    stop_and_continue(params, stop_at, tmp_path, ema)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_stopped_run_continues_to_the_same_weights_with_two_threads(tmp_path: Path) -> None:
    assert torch.get_num_threads() == 2
    stop_and_continue(PENALISED, 3, tmp_path)  # at an epoch's end


def stop_and_continue(params: ObjectiveParams | PretrainParams, stop_at: int, folder: Path, ema: float = 0.0) -> None:
    whole = run(folder / "whole", params, ema=ema)
    with pytest.raises(Interrupted, match=f"SIGTERM at step {stop_at},"):
        run(folder / "stopped", params, ema=ema, wrap=lambda method: stopped_in_step(stop_at, method))
    assert_identical(run(folder / "stopped", params, ema=ema), whole)


def test_more_epochs_continue_from_the_last_state_and_fewer_end_at_once(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", epochs=4)
    short = run(tmp_path / "short", epochs=3)
    photos = MadePhotos(12)
    assert_identical(run(tmp_path / "short", photos=photos, epochs=1), short)
    assert not photos.asked
    assert_identical(run(tmp_path / "short", photos=photos, epochs=4), whole)
    assert len(photos.asked) == 12  # one epoch


def test_the_averaged_weights_are_the_result_and_leave_training_alone(tmp_path: Path) -> None:
    plain, averaged = run(tmp_path / "plain"), run(tmp_path / "averaged", ema=0.9)
    assert averaged.history == plain.history
    difference = [
        (weight - plain.generator.state_dict()[name]).abs().max().item()
        for name, weight in averaged.generator.state_dict().items()
        if name.endswith(("weight", "running_mean", "running_var"))
    ]
    assert min(difference) > 0
    assert not averaged.generator.training


@pytest.mark.parametrize("params", [GAN, PRETRAIN], ids=["gan", "l1"])
def test_a_setting_of_the_runtime_does_not_stop_a_run_from_continuing(params: Any, tmp_path: Path) -> None:
    changes = {"precision": "bf16", "checkpoint_minutes": 1e-9, "deterministic": True}
    for number, change in enumerate(changes.items(), 1):
        log: list[str] = []
        with pytest.raises(Interrupted):
            run(
                tmp_path,
                params,
                epochs=5,
                runtime=RUNTIME.model_copy(update=dict([change])),
                wrap=lambda method: stopped_in_step(2, method),
                log=log.append,
            )
        assert number == 1 or f"step {2 * (number - 1)} " in log[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path: Path) -> None:
    photos = MadePhotos(12)
    photos.spoilt_after = 4  # the first batch
    with pytest.raises(Diverged, match=r"step 2: .*generator_l1 nan.*no checkpoint"):
        run(tmp_path, photos=photos)


def test_a_run_that_diverges_later_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    photos = MadePhotos(12)
    photos.spoilt_after = 20  # of the 24 that two epochs ask for
    with pytest.raises(Diverged) as caught:
        run(tmp_path, photos=photos)
    checkpoint = tmp_path / "000000003.pt"
    assert "at step 6: " in str(caught.value)
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert checkpoint.exists()
    assert [path.name for path in tmp_path.glob("*.pt")] == [checkpoint.name]


def spoil_the_state(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"critic_steps", b"critic_stops"))


def lack_a_part(path: Path) -> None:
    """Its checksum is right, but it is no state of this training."""
    checkpoints = Checkpoints(path.parent)
    state = checkpoints.load(warn=print)
    del state["networks"]["critic_optimizer"]
    checkpoints.save(int(path.stem), state)


@pytest.mark.parametrize("harm", [spoil_the_state, lack_a_part])
def test_a_damaged_checkpoint_is_neither_resumed_nor_named_as_good(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", epochs=4)
    run(tmp_path / "2", epochs=2)
    first, second = (tmp_path / "2" / f"{step:09d}.pt" for step in (3, 6))
    harm(second)
    photos = MadePhotos(12)
    photos.spoilt_after = 0
    with pytest.raises(Diverged, match=f"at step 4: .*{first}"):
        run(tmp_path / "2", photos=photos, epochs=4)
    assert_identical(run(tmp_path / "2", epochs=4), whole)


def test_where_the_only_checkpoint_is_of_another_shape_training_starts_afresh(tmp_path: Path) -> None:
    whole = run(tmp_path, epochs=1)
    lack_a_part(tmp_path / "000000003.pt")
    assert_identical(run(tmp_path, epochs=1), whole)


def test_an_epochs_end_writes_no_checkpoint_soon_after_the_last_but_for_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 1e9)
    written = run(tmp_path / "1", epochs=3).timings
    assert [path.stem for path in (tmp_path / "1").glob("*.pt")] == ["000000009"]
    assert [row["checkpoints"] > 0 for row in written] == [False, False, True]
    often = run(tmp_path / "2", epochs=3, runtime=RUNTIME.model_copy(update={"checkpoint_minutes": 1e-9})).timings
    assert all(row["checkpoints"] > 0 for row in often)
