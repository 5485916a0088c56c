from __future__ import annotations

import pytest
from validations import validation_of

from profiler.validation.result import Validation


@pytest.fixture(scope="session")
def exact() -> Validation:
    """Every memory figure as published."""
    return validation_of([1.0])


@pytest.fixture(scope="session")
def off() -> Validation:
    """Cases that are off by nothing, a little, and far too much."""
    return validation_of([1.0, 1.2, 1.0004, 0.93])
