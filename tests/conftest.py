from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from devtools import Browser
from hypothesis import settings

# Time is not what these properties are about, and a busy machine is no counterexample.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One headless Chromium; without one a test is skipped, in CI it fails."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        message = "no chromium on the path"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with Browser(binary, tmp_path_factory.mktemp("profile")) as opened:
        yield opened
