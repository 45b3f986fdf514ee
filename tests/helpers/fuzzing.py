"""Random inputs: the same few in every run, and as a sweep many new ones."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

few_or_many = pytest.mark.parametrize("examples", [300, pytest.param(10_000, marks=pytest.mark.sweep)])


def search(examples: int) -> Callable:
    """Settings of hypothesis for a test within a test that `few_or_many` calls."""
    return settings(
        max_examples=examples, deadline=None, derandomize=examples < 1000, suppress_health_check=list(HealthCheck)
    )
