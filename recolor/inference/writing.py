"""Writing results: a file appears under its name when it is complete, and never over a file that is not to be replaced."""

import contextlib
import errno
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from recolor.core.storage import make_folder


def unwritable(folders: Iterable[Path]) -> dict[Path, str]:
    """Why nothing can be written into those of `folders`, which need not exist, that refuse it: found by trying."""
    reasons = {}
    for folder in folders:
        existing = folder
        while not os.path.lexists(existing) and existing != existing.parent:
            existing = existing.parent
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            reasons[folder] = error.strerror or str(error)
    return reasons


@contextlib.contextmanager
def appearing(target: Path, force: bool) -> Iterator[Path]:
    """A hidden path that becomes `target` when the block ends well, and goes away when it does not.

    Raises FileExistsError where `target` exists by then and `force` is false: a long run is not alone in a folder.
    """
    make_folder(target.parent)
    temporary = target.with_name(f".recolor-{uuid.uuid4().hex}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if force:
            temporary.replace(target)
        else:
            _link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, target: Path) -> None:
    """Makes `target` a name of `temporary`. Without hard links (FAT), an empty file holds the name first."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        target.open("xb").close()
        try:
            temporary.replace(target)
        except OSError:
            target.unlink()
            raise
