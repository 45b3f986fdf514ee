"""Results that are missing or damaged are named in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_results import folders, write_results

from recolor.core.errors import UserError
from recolor.reporting.results import Results, read


@pytest.fixture
def read_again(tmp_path: Path) -> Callable[[], Results]:
    """Writes results into a repository at `tmp_path`. Returns a function that reads them."""
    write_results(tmp_path, "sample", inception=False, source={"source": "sample", "crops": 4})
    return lambda: read("sample", {"data": {"sample": {}}, "evaluate": {}}, *folders(tmp_path, "sample"))


@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "text", "bytes", "another"])
def test_a_missing_or_damaged_result_is_named(tmp_path: Path, read_again: Callable[[], Results], harm: str) -> None:
    files = [path for top in ("data", "reports") for path in (tmp_path / top).rglob("*.*")]
    for path in (path for path in files if "l1" not in (path.stem, path.parent.name)):  # not scored here
        before = path.read_bytes()
        new = {"empty": b"", "cut": before[:-10], "text": b"a\n1\n", "bytes": bytes(range(256)), "another": b"[]\n"}
        path.unlink()
        if harm in new:
            path.write_bytes(new[harm])
        with pytest.raises(UserError, match=f"^{path} is {'missing' if harm == 'missing' else 'damaged'}"):
            read_again()
        path.write_bytes(before)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_table_that_ends_after_any_of_its_rows_is_damaged(
    tmp_path: Path, read_again: Callable[[], Results], rows: int
) -> None:
    tables = [path for path in tmp_path.rglob("*.csv") if "l1" not in (path.stem, path.parent.name)]
    names = set()
    for path in (path for path in tables if path.name != "rejected.csv"):  # nothing holds the number of its rows
        before = path.read_bytes()
        path.write_bytes(b"".join(before.splitlines(keepends=True)[:-rows] or before.splitlines(keepends=True)[:1]))
        named = path.with_suffix(".npz") if path.stem == "examples" else path
        with pytest.raises(UserError, match=f"^{named} "):
            read_again()
        path.write_bytes(before)
        names.add(path.name)
    assert names == {"scores.csv", "photos.csv", "examples.csv", "manifest.csv", "history.csv", "gan.csv", "wgan.csv"}


@pytest.mark.parametrize(("old", "new"), [("test,gan", "tset,gan"), ("test,gan", "test,lsgan"), ("test,gan", ",gan")])
def test_an_unknown_split_or_model_is_named_with_the_file(
    tmp_path: Path, read_again: Callable[[], Results], old: str, new: str
) -> None:
    [file] = tmp_path.rglob("scores.csv")
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"^{file} .*{new.split(',')[0] or 'nan'}.*{new.split(',')[1]}"):
        read_again()
