"""Inception's features against clean-fid's and torchmetrics' own, on real networks with random weights; its download."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytest
import server as web
import torch
from cleanfid.downloads_helper import inception_url
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from server import Server
from surroundings import ordinary_user
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3

from recolor.core.downloads import Patience
from recolor.core.storage import DiskFull
from recolor.evaluation import inception
from recolor.evaluation.inception import (
    CLEAN_FID,
    SHA256,
    TORCH_FIDELITY,
    Inception,
    WeightsError,
    WeightsUnavailableError,
    find_weights,
)
from recolor.evaluation.set_metrics import frechet_distance, kernel_distance

PICTURES = 8
CPU = torch.device("cpu")
PUBLISHED = dict(SHA256)  # before `random_inception` replaces the checksums


def pictures(seed: int) -> torch.Tensor:
    """(8, 3, 48, 48): blocks of random colours, so that pictures differ in their features."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(PICTURES, 3, 4, 4, generator=generator) * torch.rand(PICTURES, 1, 1, 1, generator=generator)
    return (blocks.repeat_interleave(12, 2).repeat_interleave(12, 3) * 255).to(torch.uint8)


OUTPUT, TRUTH = pictures(2), pictures(1)


@pytest.fixture(scope="module")
def both(random_inception: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features of OUTPUT and TRUTH, in batches of different sizes."""
    network = Inception(find_weights(random_inception), CPU)
    output = [network(batch) for batch in OUTPUT.split(5)]
    joined = {name: torch.cat([part[name] for part in output]).numpy() for name in output[0]}
    return joined, {name: features.numpy() for name, features in network(TRUTH).items()}


def test_fid_and_kid_are_clean_fids_on_folders(both, random_inception: Path, tmp_path: Path) -> None:
    columns = 256  # clean-fid's matrix root takes 20 s for all 2048
    network = InceptionV3W(str(random_inception), download=False)
    theirs = []
    for name, rgb in (("output", OUTPUT), ("truth", TRUTH)):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(rgb):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{number}.png")
        features = cleanfid.fid.get_folder_features(
            str(tmp_path / name), network, mode="clean", num_workers=0, device=CPU, verbose=False
        )
        theirs.append(features[:, :columns])
    ours = [features["inception"][:, :columns] for features in both]
    assert frechet_distance(*ours)[0] == pytest.approx(cleanfid.fid.fid_from_feats(*theirs), rel=1e-4)
    assert kernel_distance(*ours, 0)[0] == pytest.approx(cleanfid.fid.kernel_distance(*theirs), rel=1e-3)


def test_fid64_is_torchmetrics(both, random_inception: Path) -> None:
    metric = FrechetInceptionDistance(64, feature_extractor_weights_path=str(random_inception / TORCH_FIDELITY))
    metric.update(TRUTH, real=True)
    metric.update(OUTPUT, real=False)
    ours = [features["inception_early"] for features in both]
    assert frechet_distance(*ours)[0] == pytest.approx(metric.compute().item(), rel=1e-4)


def test_the_inception_scores_logits_are_torchmetrics(both, random_inception: Path) -> None:
    weights = str(random_inception / TORCH_FIDELITY)
    network = NoTrainInceptionV3("inception-v3-compat", ["logits_unbiased"], feature_extractor_weights_path=weights)
    np.testing.assert_allclose(both[0]["inception_logits"], network(OUTPUT), rtol=1e-3, atol=1e-3)


def test_the_files_are_the_ones_that_the_libraries_fetch() -> None:
    assert [Path(url).name for url in (inception_url, URL_INCEPTION_V3)] == [CLEAN_FID, TORCH_FIDELITY]
    beginning = Path(TORCH_FIDELITY).stem.rsplit("-", 1)[1]  # torch hub's way to name a file
    assert PUBLISHED[TORCH_FIDELITY].startswith(beginning)


def test_a_named_folder_is_held_to_the_published_files(random_inception: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=CLEAN_FID):
        find_weights(tmp_path)
    shutil.copytree(random_inception, tmp_path, dirs_exist_ok=True)
    assert find_weights(tmp_path) == {name: tmp_path / name for name in (CLEAN_FID, TORCH_FIDELITY)}
    with (tmp_path / TORCH_FIDELITY).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(WeightsError, match=TORCH_FIDELITY) as error:
        find_weights(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub, and a proxy at a closed port."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path / "hub" / "checkpoints"


def test_without_a_network_the_error_names_the_remedy(offline_hub: Path) -> None:
    with pytest.raises(WeightsUnavailableError) as error:
        find_weights(None)
    remedies = "dvc repro -f -s evaluate@DATASET && dvc repro", "evaluate.inception_weights"
    assert all(part in str(error.value) for part in (inception_url, CLEAN_FID, TORCH_FIDELITY, *remedies))
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
    """Replaces both servers that the libraries name; its content is accepted as the published weights."""
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


def test_the_weights_arrive_over_a_line_that_breaks(server: Server, offline_hub: Path) -> None:
    """tests/core/test_downloads.py tests every fault of a connection."""
    server.script = [web.cut_after(100_000), web.complete]
    paths = find_weights(None, IMPATIENT)
    assert paths == {name: offline_hub / name for name in (CLEAN_FID, TORCH_FIDELITY)}
    assert [path.read_bytes() for path in paths.values()] == [CONTENT, CONTENT]


@pytest.mark.parametrize("behaviour", [web.respond(404), web.wrong_bytes], ids=["404", "other weights"])
def test_other_weights_are_never_kept(server: Server, offline_hub: Path, behaviour: web.Behaviour) -> None:
    server.script = [behaviour]
    with pytest.raises(WeightsUnavailableError) as failure:
        find_weights(None, IMPATIENT)
    assert "\n" not in str(failure.value)
    assert downloaded(offline_hub) == set()


def test_a_full_disk_is_not_blamed_on_the_network(
    server: Server, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(small_disk))
    (small_disk / "other").write_bytes(bytes(800_000))
    with pytest.raises(DiskFull, match=rf"{CLEAN_FID} .*0\.4 MB.*{small_disk}/hub/checkpoints"):
        find_weights(None, IMPATIENT)
    assert downloaded(small_disk / "hub" / "checkpoints") == set()


def test_a_closed_cache_is_not_blamed_on_the_network(server: Server, offline_hub: Path) -> None:
    offline_hub.mkdir(parents=True)
    offline_hub.chmod(0o555)
    with ordinary_user(), pytest.raises(WeightsUnavailableError, match="set TORCH_HOME"):
        find_weights(None, IMPATIENT)
