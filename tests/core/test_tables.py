"""Reading this project's own files: a damaged file is one line, and a mistake in the code keeps its traceback."""

from pathlib import Path

import numpy as np
import pytest

from recolor.core.errors import UserError
from recolor.core.tables import read_arrays, read_json, read_rows, reading


@pytest.mark.parametrize("error", [TypeError, KeyError, AttributeError, IndexError, ZeroDivisionError])
def test_a_mistake_in_the_code_is_not_called_a_damaged_file(tmp_path: Path, error: type[Exception]) -> None:
    with pytest.raises(error), reading(tmp_path / "file"):
        raise error


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n", "a,b\n1\n", "a,c\n1,2\n", "a,b\n1,2", 'a,b\n"1,2\n'])
def test_rows_that_do_not_fit_the_header_are_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=r"table\.csv"):
        read_rows(tmp_path / "table.csv", ["a", "b"])


@pytest.mark.parametrize("text", ["[]", "1", "{", '{"b": 1}', "null", '"a"'])
def test_json_that_is_no_object_with_the_keys_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(UserError, match=r"card\.json"):
        read_json(tmp_path / "card.json", "a")


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, 0), (8, 1), (10, 8), (10, 99)],
    ids=["no entry", "encrypted", "another compression", "an unknown compression"],
)
def test_arrays_with_a_damaged_header_are_damage(tmp_path: Path, offset: int, value: int) -> None:
    file = tmp_path / "arrays.npz"
    np.savez(file, a=np.arange(6))
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\1\2") + offset] = value
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"arrays\.npz"):
        read_arrays(file)


def test_an_array_that_is_not_there_is_damage(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.arange(6))
    with pytest.raises(UserError, match=r"arrays\.npz"):
        read_arrays(tmp_path / "arrays.npz", "a", "b")
