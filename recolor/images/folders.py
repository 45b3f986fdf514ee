"""The files of a folder and its subfolders, for training and for `recolor colorize` alike."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from recolor.images.opening import listed_name


def walk(top: Path) -> Iterator[str]:
    """Listed names of all files below `top`, photos or not, and of the folders that cannot be looked into.

    Links to folders are followed after the other folders, and no folder is entered twice: so circles end, and a photo has
    its own name rather than a link's. Hidden files and folders are left out: thumbnails, trash, macOS's files.
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
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(name)
            else:
                yield listed_name(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where there is no permission
        return False
