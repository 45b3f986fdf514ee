"""The files in a folder and its subfolders, for training and for `recolor colorize`."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from recolor.core.storage import is_folder
from recolor.images.opening import listed_name

RESULT_MARK = "-recolor"  # at the end of the name, before the suffix, of what `recolor colorize` writes


def walk(top: Path) -> Iterator[str]:
    """Listed names of all files below `top`, photos or not, and of unreadable folders; not of hidden ones and of results.

    Links to folders are followed last, and no folder is entered twice: loops end, and a photo is listed under its real path.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = ["."], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = (top / folder).stat()
            entries = sorted(os.scandir(top / folder), key=lambda entry: entry.name)
        except OSError:
            yield listed_name(os.path.normpath(folder))
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = os.path.normpath(f"{folder}/{entry.name}")
            if entry.name.startswith("."):
                continue
            if is_folder(Path(entry.path)):
                (links if entry.is_symlink() else folders).append(name)
            elif not Path(entry.name).stem.endswith(RESULT_MARK):
                yield listed_name(name)
