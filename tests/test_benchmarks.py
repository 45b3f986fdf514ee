"""The benchmarks run on next to nothing and fill their table. Tests do not check how fast anything is."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from networks import parameter_count

from benchmarks import __main__ as command
from benchmarks import colorize, films, gpu, growth, measuring, ours, pipeline, step, textbook
from benchmarks.measuring import NO_TIME, Budget, Sizes, Worker, in_turn
from benchmarks.table import Row
from recolor.models.patchgan import PatchDiscriminator
from recolor.models.unet import UNetGenerator

TINY = Sizes(
    photos=8,
    scored=4,
    photo_size=(60, 40),
    size=64,
    batch=2,
    filters=2,
    downs=4,
    megapixels=(0.01, 0.02),
    small_photos=2,
    film_frames=3,
    repeats=1,
    matrices=(64,),
    compiled=False,
    inception=False,
    children=False,
)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [*step.rows(TINY, 60), *pipeline.rows(TINY, 60), *colorize.rows(TINY, 60), *films.rows(TINY, 60)]


def test_every_row_has_a_value_or_a_reason(rows: list[Row]) -> None:
    parts = {row.part.partition(",")[0] for row in rows}
    assert parts >= {
        "ceiling",
        "GAN step",
        "WGAN step",
        "preprocess",
        "batches of photos",
        "training",
        "evaluate",
        "colorize",
        "films",
    }
    assert all(row.note if row.value is None else math.isfinite(row.value) and row.value >= 0 for row in rows)


def test_bf16_is_not_measured_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "precision", lambda: "fp32")
    found = [row for row in step.rows(TINY, 0) if "bf16" in row.what]
    assert found
    assert all(row.value is None and row.note == step.NO_UNITS for row in found)


def test_without_time_rows_are_left_empty() -> None:
    found = list(step.rows(TINY, 0))
    assert {row.note for row in found if row.value is None} >= {NO_TIME}
    assert {row.part for row in found if row.value is not None} == {"ceiling"}


def test_fewer_rounds_where_the_budget_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measuring.time, "monotonic", lambda: clock[0])
    timings = in_turn({"a": lambda: clock.__setitem__(0, clock[0] + 10)}, repeats=5, seconds=35)
    assert timings.rounds == 2  # after 10 s of warming up, two of 10 s; a third would end after 40
    assert timings.note(5)
    assert not timings.note(2)


def test_what_one_measurement_leaves_of_the_budget_is_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measuring.time, "monotonic", lambda: clock[0])
    budget = Budget(90, measurements=3, start=0.0)
    assert budget.share() == 30
    clock[0] = 10
    assert budget.share() == 40


def test_candidates_take_turns_after_those_that_are_not_warm_ran_once() -> None:
    turns: list[str] = []
    in_turn({name: lambda name=name: turns.append(name) for name in "ab"}, 2, warm="a")
    assert "".join(turns) == "babab"


def test_a_worker_has_a_process_and_settings_of_its_own_and_is_missed_when_it_has_died() -> None:
    with Worker(dataclasses.replace(TINY, children=True), _setting) as worker:
        pid, setting, given = worker.make(_candidates, 1)["asked"]()
        again = worker.make(_candidates, 2)["asked"]()
        with pytest.raises(RuntimeError, match="step"):  # it has died
            worker.make(_dying)["step"]()
    assert pid != os.getpid()
    assert (setting, given) == ("set", 1)
    assert again == (pid, "set", 2)
    assert "SETTING" not in os.environ


def _candidates(sizes: Sizes, given: int) -> dict[str, Callable[[], tuple[int, str, int]]]:
    return {"asked": lambda: (os.getpid(), os.environ["SETTING"], given)}


def _dying(sizes: Sizes) -> dict[str, Callable[[], None]]:
    return {"step": lambda: os._exit(1)}


@contextlib.contextmanager
def _setting() -> Iterator[None]:
    os.environ["SETTING"] = "set"
    yield


def _one_row(sizes: Sizes, seconds: float) -> Iterator[Row]:
    yield Row("part", "what", 2.0, "photos/s", gain=1.5, share=0.5)


def _interrupted(sizes: Sizes, seconds: float) -> Iterator[Row]:
    yield from _one_row(sizes, seconds)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(5)


@pytest.mark.parametrize(("rows", "status"), [(_one_row, 0), (_interrupted, 130)])
def test_json_and_table_hold_what_was_measured(
    rows: Callable[..., Iterator[Row]],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(command.PARTS, "startup", rows)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert command.main(["startup", "--json"], TINY) == status
    finally:
        signal.signal(signal.SIGTERM, handler)
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert [Row(**row) for row in content["rows"]] == list(_one_row(TINY, 1))
    assert f"torch {torch.__version__.split('+')[0]}" in content["machine"]
    assert "| part | what | 2 photos/s | 1.50x | 50% |  |" in printed.err


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["stepp"])
    assert "stepp" in capsys.readouterr().err


def test_evaluates_speed_counts_the_photos_that_it_scores(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(pipeline, "evaluate", lambda *_: clock.__setitem__(0, clock[0] + 2))
    monkeypatch.setattr(textbook, "evaluate", lambda *_: clock.__setitem__(0, clock[0] + 8))
    usual, speed, _ = pipeline._evaluate(TINY, tmp_path, 60)
    assert (usual.value, usual.unit) == (TINY.scored / 8, "photos/s")
    assert (speed.value, speed.gain, speed.unit) == (TINY.scored / 2, 4, "photos/s")


def test_the_textbooks_networks_are_ours() -> None:
    generator, discriminator = ours.networks(TINY)
    assert parameter_count(textbook.unet(2, 4)) == parameter_count(UNetGenerator(generator))
    assert parameter_count(textbook.patchgan(2, 3)) == parameter_count(PatchDiscriminator(discriminator))
    photo = torch.zeros(1, 1, 32, 32)
    assert textbook.unet(2, 4)(photo).shape == UNetGenerator(generator)(photo).shape


def test_a_gan_step_is_86_gflop_a_photo() -> None:
    assert step.gan_flops(Sizes()) == pytest.approx(86e9, rel=0.01)


def test_gradients_as_views_are_another_way_to_the_same_step() -> None:
    def operations(
        within: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> tuple[list[torch.Tensor], list[str]]:
        with within():
            torch.manual_seed(1)
            trainer = ours.Trainer(TINY, "gan", "fp32")
            with torch.autograd.profiler.profile() as noted:
                trainer.step(ours.random_batch(TINY))
        weights = [weight.grad.clone() for weight in trainer.state.critic.parameters()]
        return weights, sorted(event.name for event in noted.function_events)

    (gradients, dense), (others, views) = operations(ours.as_in_training), operations(ours.with_views)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert dense != views


def test_growth_measures_what_each_photo_takes() -> None:
    assert {unit for _, unit in growth._measure(4).values()} == {"ms a photo", "MB"}


@pytest.mark.sweep
def test_what_a_gpu_is_to_run_runs_on_a_cpu() -> None:
    sizes = dataclasses.replace(TINY, run=40, size=64, downs=5)
    found = list(gpu.measured(sizes, 600))
    assert {row.part for row in found} == {"preprocess", "paper recipe", "modern recipe"}
    assert all(row.value is not None and row.value > 0 for row in found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_its_rows_are_empty() -> None:
    assert all(row.value is None and row.note for row in gpu.rows(TINY, 60))
