"""The benchmarks run, on next to nothing, and fill their table. How fast anything is, is not for tests to say."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import growth, ours, pipeline, startup, step, textbook
from benchmarks.measuring import Row, Sizes, apart, as_json, in_turn, markdown
from recolor.models.networks import GeneratorParams, PatchDiscriminator, UNetGenerator, parameter_count
from recolor.runtime.devices import Machine

TINY = Sizes(
    photos=8,
    scored=4,
    photo_size=(60, 40),
    size=32,
    batch=2,
    filters=2,
    downs=4,
    repeats=1,
    matrices=(64,),
    compiled=False,
    inception=False,
    children=False,
)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return step.rows(TINY) + pipeline.rows(TINY)


def test_every_part_has_its_rows(rows: list[Row]) -> None:
    parts = list(dict.fromkeys(row.part for row in rows))
    assert parts == ["ceiling", "training step", "preprocess", "batches of photos", "training, GAN", "evaluate"]
    assert all(row.value is not None and math.isfinite(row.value) and row.value > 0 for row in rows)


def test_the_table_has_a_line_a_row_and_names_the_machine(rows: list[Row]) -> None:
    machine, empty, header, rule, *lines = markdown(rows).splitlines()
    assert f"torch {torch.__version__.split('+')[0]}" in machine
    assert not empty
    assert {line.count("|") for line in (header, rule, *lines)} == {6}
    assert len(lines) == len(rows)


def test_a_row_without_a_measurement_stays_empty() -> None:
    assert markdown([Row("part", "what", None, "photos/s")]).endswith("| part | what |  photos/s |  |  |")


def test_json_holds_what_the_table_holds(rows: list[Row]) -> None:
    content = json.loads(as_json(rows))
    assert [Row(**row) for row in content["rows"]] == rows
    assert content["machine"]


def test_candidates_take_turns_after_a_round_to_warm_up() -> None:
    turns: list[str] = []
    in_turn({name: lambda name=name: turns.append(name) for name in "ab"}, 2)
    assert "".join(turns) == "ababab"


def test_each_side_has_a_process_and_settings_of_its_own() -> None:
    with apart(dataclasses.replace(TINY, children=True), _side, 1, within=_setting) as side:
        pid, setting, given = side["told"]()
    assert pid != os.getpid()
    assert (setting, given) == ("set", 1)
    assert "SETTING" not in os.environ


def _side(sizes: Sizes, given: int) -> dict[str, Callable[[], tuple[int, str, int]]]:
    return {"told": lambda: (os.getpid(), os.environ["SETTING"], given)}


def test_a_process_that_ends_too_early_is_told_of() -> None:
    told = "the process that was asked for step has ended"
    with apart(dataclasses.replace(TINY, children=True), _dying) as side, pytest.raises(RuntimeError, match=told):
        side["step"]()


def _dying(sizes: Sizes) -> dict[str, Callable[[], None]]:
    return {"step": lambda: os._exit(1)}


@contextlib.contextmanager
def _setting() -> Iterator[None]:
    os.environ["SETTING"] = "set"
    yield


def test_evaluates_speed_counts_the_photos_that_it_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: clock[0])
    ours.make_photos(tmp_path / "photos", TINY.scored, TINY.photo_size)
    monkeypatch.setattr(pipeline, "evaluate", lambda *_: clock.__setitem__(0, clock[0] + 2))
    usually = textbook.evaluate

    def evaluate_usually(*arguments: Any) -> None:
        usually(*arguments)
        clock[0] += 8

    monkeypatch.setattr(textbook, "evaluate", evaluate_usually)
    usual, speed, _ = pipeline._evaluate(TINY, tmp_path)
    assert (usual.value, usual.unit) == (TINY.scored / 8, "photos/s")
    assert (speed.value, speed.gain, speed.unit) == (TINY.scored / 2, 4, "photos/s")


def test_the_textbooks_networks_are_ours() -> None:
    generator, discriminator = ours.networks(TINY)
    assert parameter_count(textbook.unet(2, 4)) == parameter_count(UNetGenerator(generator))
    assert parameter_count(textbook.patchgan(2, 3)) == parameter_count(PatchDiscriminator(discriminator))
    assert isinstance(generator, GeneratorParams)
    photo = torch.zeros(1, 1, 32, 32)
    assert textbook.unet(2, 4)(photo).shape == UNetGenerator(generator)(photo).shape


@pytest.mark.parametrize("switch", ours.SWITCHES)
def test_a_switch_that_is_off_changes_the_way_and_not_the_step(switch: str) -> None:
    def operations(off: bool) -> tuple[list[torch.Tensor], list[str]]:
        torch.manual_seed(1)
        trainer = ours.Trainer(TINY, "gan")
        trainer.machine = Machine.find(precision="fp32")
        noted = torch.autograd.profiler.profile()
        with noted, ours.without(switch, trainer) if off else contextlib.nullcontext():
            trainer.step(ours.random_batch(TINY))
        weights = [weight.grad.clone() for weight in trainer.players.critic.parameters()]
        return weights, sorted(event.name for event in noted.function_events)

    (gradients, on), (others, off) = operations(False), operations(True)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert on != off


def test_growth_measures_what_each_photo_takes() -> None:
    assert {unit for _, unit in growth._measure(4).values()} == {"ms a photo", "MB"}


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["stepp"])
    assert "no such part: stepp" in capsys.readouterr().err


def test_a_run_of_nothing_prints_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.rows(TINY) == []
    command.main(["startup", "--json"], TINY)
    assert json.loads(capsys.readouterr().out)["rows"] == []
