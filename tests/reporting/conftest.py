"""Small made-up results of two datasets."""

from pathlib import Path

import pytest
from made_up_results import write_results

from recolor.reporting.results import Results


@pytest.fixture
def sample(tmp_path: Path) -> Results:
    return write_results(tmp_path, "sample", inception=False, source={"source": "sample", "crops": 4})


@pytest.fixture
def mine(tmp_path: Path) -> Results:
    return write_results(
        tmp_path, "mine", inception=True, source={"source": "folder", "path": "/home/me/photos", "limit": None}
    )
