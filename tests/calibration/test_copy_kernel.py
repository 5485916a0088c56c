"""The Triton copy, under Triton's interpreter: what a GPU is to run does what it says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

_CODE = """
import torch
from profiler.calibration.copy_kernel import BLOCK, copy
for count in (1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5):
    source, target = torch.randn(count), torch.zeros(count + 3)
    copy(source, target[:count])
    assert torch.equal(source, target[:count]), count
    assert not target[count:].any(), count
"""


def test_it_copies_all_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
