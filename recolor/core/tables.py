"""Reading this project's own files, damaged ones too. Without pandas, which the base installation does not have."""

import contextlib
import csv
import io
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from zipfile import BadZipFile

from recolor.core.errors import UserError


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turns what the readers of a missing, damaged or refused file raise into UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file} is missing: `dvc repro` makes it") from None
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        EOFError,
        csv.Error,
        BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's; those of Pillow and others have none
            raise UserError(f"{file} cannot be read: {error.strerror}") from None
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{file} is damaged ({why}): `dvc repro` makes it again") from None


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
        return list(csv.DictReader(complete_csv(file, columns), strict=True))
