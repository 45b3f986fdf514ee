"""This project's own files, written and read, damaged ones too. Without pandas, which the base installation does not have."""

import contextlib
import csv
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recolor.core.errors import UserError, one_line

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turns what the readers of a missing, damaged or refused file raise into UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file} is missing: `dvc repro` makes it") from None
    except (OSError, ValueError, EOFError, csv.Error) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's; those of Pillow and others have none
            raise UserError(f"{file} cannot be read: {error.strerror}") from None
        why = one_line(f"{type(error).__name__}: {error}")
        raise UserError(f"{file} is damaged ({why}): `dvc repro` makes it again") from None


def write_table(table: "pd.DataFrame", file: Path) -> None:
    """Writes a CSV file with the same bytes on every system. `read_table` and `read_rows` read it. Raises OSError."""
    table.to_csv(file, index=False, lineterminator="\n")


def complete_csv(file: Path, columns: Collection[str]) -> io.StringIO:
    """The content of a CSV file. Raises ValueError if it is cut short or has not all of `columns`."""
    text = file.read_text("utf-8")
    if not text.endswith("\n"):
        raise ValueError("its end is missing")
    if missing := set(columns) - set(next(csv.reader(io.StringIO(text)), [])):
        raise ValueError(f"it has no column {min(missing)}")
    return io.StringIO(text, newline="")


def read_rows(file: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """The rows of a CSV file as text. Raises UserError if it is missing, cut short or has not all of `columns`."""
    with reading(file):
        rows = list(csv.DictReader(complete_csv(file, columns), strict=True))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("its rows differ in length")
        return rows


def read_arrays(file: Path, *names: str) -> "dict[str, NDArray[Any]]":
    """The arrays in an .npz file. Raises UserError if the file is missing or damaged, or has not all of `names`."""
    import numpy as np

    with reading(file), file.open("rb") as stream:
        try:
            found = dict(np.load(stream))
        except Exception as error:  # on a damaged header NumPy and zipfile raise any exception
            raise ValueError(f"{type(error).__name__}: {error}") from None
        if missing := set(names) - set(found):
            raise ValueError(f"it has no array {min(missing)}")
        return found


def read_json(file: Path, *keys: str) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if the file is missing or damaged, or the object has not all of `keys`."""
    with reading(file):
        content = json.loads(file.read_text("utf-8"))
        if not isinstance(content, dict) or not set(keys) <= set(content):
            raise ValueError(f"it is no object with {', '.join(keys)}")
        return content
