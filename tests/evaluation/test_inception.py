"""Set scores against clean-fid's and torchmetrics' own, end to end on real networks with random weights, offline."""

import hashlib
import shutil
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytest
import server as web
import torch
from cleanfid.downloads_helper import inception_url
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from conftest import ordinary_user
from PIL import Image
from server import Server
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
from torchmetrics.image.inception import InceptionScore

from recolor.core.downloads import Patience
from recolor.core.storage import DiskFull
from recolor.evaluation import inception
from recolor.evaluation.inception import (
    CLEAN_FID,
    SHA256,
    TORCH_FIDELITY,
    FeatureSet,
    Inception,
    WeightsError,
    WeightsUnavailableError,
    clean_resize,
    find_weights,
    frechet_distance,
    inception_score,
    kernel_distance,
    set_scores,
)

PICTURES = 20
CPU = torch.device("cpu")
PUBLISHED = dict(SHA256)  # before `random_inception` puts the checksums of its own files there


def pictures(seed: int) -> torch.Tensor:
    """(20, 3, 48, 48): blocks of random colours, so that each picture has a character of its own."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(PICTURES, 3, 4, 4, generator=generator) * torch.rand(PICTURES, 1, 1, 1, generator=generator)
    return (blocks.repeat_interleave(12, 2).repeat_interleave(12, 3) * 255).to(torch.uint8)


def features_of(network: Inception, rgb: torch.Tensor, batch: int) -> FeatureSet:
    features = FeatureSet.zeros(len(rgb))
    for start in range(0, len(rgb), batch):
        features.put(start, network(rgb[start : start + batch]))
    return features


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return pictures(1)


@pytest.fixture(scope="module")
def output() -> torch.Tensor:
    return pictures(2)


@pytest.fixture(scope="module")
def both(random_inception: Path, output: torch.Tensor, truth: torch.Tensor) -> tuple[FeatureSet, FeatureSet]:
    """Features of output and truth, in batches of different sizes."""
    network = Inception(find_weights(random_inception), CPU)
    return features_of(network, output, 8), features_of(network, truth, 20)


@pytest.fixture(scope="module")
def one_answer(both: tuple[FeatureSet, FeatureSet]) -> dict[str, float | None]:
    return set_scores(*both, seed=5)


def test_fid_and_kid_are_clean_fids_on_folders(
    both, random_inception: Path, output, truth, tmp_path: Path, monkeypatch
) -> None:
    few, columns = 8, 256  # clean-fid's matrix root takes 20 s for all 2048
    for name, rgb in (("output", output), ("truth", truth)):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(rgb[:few]):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{number}.png")
    network = InceptionV3W(str(random_inception), download=False)
    monkeypatch.setattr(
        cleanfid.fid, "build_feature_extractor", lambda *_, **__: lambda batch: network(batch)[:, :columns]
    )
    settings = {"mode": "clean", "num_workers": 0, "device": CPU, "verbose": False}
    folders = (str(tmp_path / "output"), str(tmp_path / "truth"))
    ours = [features.clean[:few, :columns] for features in both]

    assert frechet_distance(*ours) == pytest.approx(cleanfid.fid.compute_fid(*folders, **settings), rel=1e-4)
    kid, spread = kernel_distance(*ours, seed=0)
    assert kid == pytest.approx(cleanfid.fid.compute_kid(*folders, **settings), rel=1e-3)
    assert kid != 0
    assert spread is None  # every subset is the whole set


def test_fid64_is_torchmetrics(both, one_answer, random_inception: Path, output, truth) -> None:
    metric = FrechetInceptionDistance(64, feature_extractor_weights_path=str(random_inception / TORCH_FIDELITY))
    metric.update(truth, real=True)
    metric.update(output, real=False)
    assert one_answer["fid64"] == pytest.approx(metric.compute().item(), rel=1e-4)


def test_inception_score_is_torchmetrics(one_answer, random_inception: Path, output) -> None:
    weights = str(random_inception / TORCH_FIDELITY)
    network = NoTrainInceptionV3("inception-v3-compat", ["logits_unbiased"], feature_extractor_weights_path=weights)
    with warnings.catch_warnings(action="ignore"):
        metric = InceptionScore(network)
    metric.update(output)
    torch.manual_seed(5)
    mean, spread = metric.compute()
    assert one_answer["is"] == pytest.approx(mean.item(), rel=1e-4)
    assert one_answer["is_std"] == pytest.approx(spread.item(), rel=1e-3)
    assert mean > 1.01


def test_a_set_is_no_distance_from_itself(both) -> None:
    scores = set_scores(both[1], both[1], seed=0)
    assert scores["fid"] == pytest.approx(0, abs=1e-9)
    assert scores["fid64"] == pytest.approx(0, abs=1e-9)
    assert scores["kid"] < 0  # unbiased: the pictures of one set are further from each other than from themselves


@pytest.mark.parametrize("size", [64, 256, 400])
def test_resize_is_clean_fids(size: int) -> None:
    rgb = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resize = build_resizer("clean")
    expected = np.stack([resize(picture.permute(1, 2, 0).numpy()) for picture in rgb]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(clean_resize(rgb), expected, atol=0.01)


@pytest.mark.parametrize("photos", [2, 40, 300])
def test_frechet_distance_is_clean_fids_below_and_above_the_number_of_features(photos: int) -> None:
    rng = np.random.default_rng(photos)
    mix = rng.normal(size=(96, 96))
    one, other = (rng.normal(mean, 1, (photos, 96)) @ mix for mean in (0, 0.3))
    with warnings.catch_warnings(action="ignore"):
        expected = cleanfid.fid.fid_from_feats(one, other)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("block", [3, 50, 96, 200])
def test_frechet_distance_does_not_depend_on_the_blocks_that_it_is_taken_in(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 300, 96)).astype(np.float32)
    whole = frechet_distance(one, other)
    monkeypatch.setattr(inception, "BLOCK", block)
    assert frechet_distance(one, other) == pytest.approx(whole, rel=1e-9)


def test_frechet_distance_makes_no_copy_of_all_features(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    monkeypatch.setattr(inception, "BLOCK", 500)
    tracemalloc.start()
    frechet_distance(features, features[::-1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < features.nbytes / 4


def test_frechet_distance_of_gaussians_that_are_known() -> None:
    # N(0, 1) and N(3, 4) in one dimension: 3^2 + (1 - 2)^2.
    sample = np.random.default_rng(0).normal(size=(1000, 1))
    sample = (sample - sample.mean()) / sample.std(ddof=1)
    assert frechet_distance(sample, 3 + 2 * sample) == pytest.approx(10)


def test_kid_has_a_spread_where_its_subsets_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 60, 16)).astype(np.float32)
    monkeypatch.setattr(inception, "KID_SUBSET_SIZE", 50)
    kid, spread = kernel_distance(one, other, seed=3)
    np.random.seed(3)  # noqa: NPY002
    assert kid == pytest.approx(cleanfid.fid.kernel_distance(other, one, 100, 50), rel=1e-4)
    assert spread is not None
    assert spread > 0


def test_scores_come_from_the_seed_and_leave_the_shared_generators_alone(both, one_answer) -> None:
    def shared() -> list[object]:
        return [np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = shared()
    assert set_scores(*both, seed=5) == one_answer
    assert shared() == before
    assert set_scores(*both, seed=6)["is"] != one_answer["is"]


def test_too_few_pictures_give_no_number(both) -> None:
    def some(count: int) -> list[FeatureSet]:
        return [FeatureSet(*(part[:count] for part in vars(features).values())) for features in both]

    assert set(set_scores(*some(1), seed=0).values()) == {None}
    two = set_scores(*some(2), seed=0)
    assert {name for name, value in two.items() if value is not None} == {"fid", "fid64", "kid"}
    assert inception_score(both[0].logits[:19], seed=0) == (
        None,
        None,
    )  # with one a split it would be 1 for any picture


def test_the_files_are_the_ones_that_the_libraries_fetch() -> None:
    assert [Path(url).name for url in (inception_url, URL_INCEPTION_V3)] == [CLEAN_FID, TORCH_FIDELITY]
    assert PUBLISHED[TORCH_FIDELITY].startswith(
        Path(TORCH_FIDELITY).stem.rsplit("-", 1)[1]
    )  # torch hub's way to name a file


def test_a_named_folder_is_held_to_the_published_files(random_inception: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{CLEAN_FID} is missing"):
        find_weights(tmp_path)
    shutil.copytree(random_inception, tmp_path, dirs_exist_ok=True)
    assert find_weights(tmp_path) == {name: tmp_path / name for name in (CLEAN_FID, TORCH_FIDELITY)}
    with (tmp_path / TORCH_FIDELITY).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(WeightsError, match=f"{TORCH_FIDELITY} is damaged or another file") as error:
        find_weights(tmp_path)
    assert "\n" not in str(error.value)


def test_random_weights_are_not_taken_for_the_published_ones(random_inception: Path, monkeypatch) -> None:
    monkeypatch.setitem(inception.SHA256, CLEAN_FID, PUBLISHED[CLEAN_FID])
    with pytest.raises(WeightsError, match="damaged or another file"):
        find_weights(random_inception)


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub's, and a proxy that nobody answers on."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path / "hub" / "checkpoints"


def test_without_a_network_the_reason_says_what_to_do(offline_hub: Path) -> None:
    with pytest.raises(WeightsUnavailableError) as error:
        find_weights(None)
    assert str(error.value) == (
        f"the Inception weights could not be downloaded from {inception_url}: with a network, "
        "`dvc repro -f -s evaluate@DATASET && dvc repro` fetches them; "
        f"or put {CLEAN_FID} and {TORCH_FIDELITY} into a folder and name it in evaluate.inception_weights"
    )
    assert [path.name for path in offline_hub.iterdir()] == [f".{CLEAN_FID}.lock"]


def test_what_was_downloaded_once_is_found_again(random_inception: Path, offline_hub: Path) -> None:
    shutil.copytree(random_inception, offline_hub)
    assert find_weights(None) == {name: offline_hub / name for name in (CLEAN_FID, TORCH_FIDELITY)}
    (offline_hub / CLEAN_FID).write_bytes(b"half of it")
    with pytest.raises(WeightsUnavailableError):
        find_weights(None)


CONTENT = np.random.default_rng(0).bytes(400_000)
IMPATIENT = Patience(timeout=20, attempts=3, wait=0.01, offline=1)


@pytest.fixture
def server(offline_hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """In the place of both of those that the libraries name; what it has passes for the published weights."""
    serving = Server(CONTENT)
    for module, name, file in (
        ("cleanfid.downloads_helper", "inception_url", CLEAN_FID),
        ("torch_fidelity.feature_extractor_inceptionv3", "URL_INCEPTION_V3", TORCH_FIDELITY),
    ):
        monkeypatch.setattr(f"{module}.{name}", serving.url.replace("photos.zip", file))
        monkeypatch.setitem(inception.SHA256, file, hashlib.sha256(CONTENT).hexdigest())
    yield serving
    serving.stop()


def downloaded(hub: Path) -> set[str]:
    return {path.name for path in hub.iterdir() if not path.name.endswith((".lock", ".part"))}


@pytest.mark.parametrize(
    ("script", "starts"),
    [
        ([web.whole], [0, 0]),
        ([web.cut_after(100_000), web.whole], [0, "more", 0]),
        ([web.answer(500), web.answer(503), web.whole], [0, 0, 0, 0]),
        ([web.hang_up, web.whole], [0, 0, 0]),
        ([web.web_page, web.whole], [0, 0, 0]),
        ([web.wrong_bytes, web.whole], [0, 0, 0]),
        ([web.cut_after(100_000), web.another_range, web.whole], [0, "more", 0, 0]),
        ([web.no_length], [0, 0]),
    ],
)
def test_the_weights_arrive_over_lines_that_break(
    server: Server, offline_hub: Path, script: list[web.Behaviour], starts: list[object]
) -> None:
    server.script = list(script)
    paths = find_weights(None, IMPATIENT)
    assert paths == {name: offline_hub / name for name in (CLEAN_FID, TORCH_FIDELITY)}
    assert [path.read_bytes() for path in paths.values()] == [CONTENT, CONTENT]
    assert ["more" if start else 0 for start in server.starts] == starts


@pytest.mark.parametrize(
    ("behaviour", "requests"),
    [
        (web.answer(404), 1),
        (web.answer(500), 3),
        (web.web_page, 3),
        (web.cut_after(0), 3),
        (web.wrong_bytes, 2),
        (web.too_much, 2),
    ],
)
def test_other_weights_are_never_kept(
    server: Server, offline_hub: Path, behaviour: web.Behaviour, requests: int
) -> None:
    server.script = [behaviour]
    with pytest.raises(WeightsUnavailableError, match="could not be downloaded from") as failure:
        find_weights(None, IMPATIENT)
    assert "\n" not in str(failure.value)
    assert len(server.starts) == requests
    assert downloaded(offline_hub) == set()


def test_the_next_evaluation_goes_on_where_this_one_stopped(server: Server) -> None:
    server.script = [web.cut_after(300_000), web.answer(404)]
    with pytest.raises(WeightsUnavailableError):
        find_weights(None, IMPATIENT)
    server.script, server.starts = [web.whole], []
    find_weights(None, IMPATIENT)
    assert 200_000 < server.starts[0] <= 300_000


def test_a_full_disk_is_not_blamed_on_the_network(
    server: Server, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(small_disk))
    (small_disk / "other").write_bytes(bytes(800_000))
    with pytest.raises(
        DiskFull, match=rf"disk full: {CLEAN_FID} needs 0\.4 MB, and {small_disk}/hub/checkpoints has 0"
    ):
        find_weights(None, IMPATIENT)
    assert downloaded(small_disk / "hub" / "checkpoints") == set()


def test_a_closed_cache_is_not_blamed_on_the_network(server: Server, offline_hub: Path) -> None:
    offline_hub.mkdir(parents=True)
    offline_hub.chmod(0o555)
    with ordinary_user(), pytest.raises(WeightsUnavailableError, match="set TORCH_HOME"):
        find_weights(None, IMPATIENT)
