from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from profiler.hardware import local_cuda


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver with one device, and a torch that is built for it."""
    library = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(local_cuda, "_torch_is_built_for_cuda", lambda: True)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return library


def _no_driver() -> None:
    raise OSError("no driver")


@pytest.mark.usefixtures("driver")
def test_nothing_is_missing_with_a_device_a_driver_and_a_torch_for_it() -> None:
    assert local_cuda.missing() == ""


def test_what_is_missing_is_named(driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.nvmlInit = _no_driver
    assert "driver" in local_cuda.missing()
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert local_cuda.missing() == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in local_cuda.missing()
    monkeypatch.setattr(local_cuda, "_torch_is_built_for_cuda", lambda: False)
    assert "torch" in local_cuda.missing()


def test_the_build_is_what_torch_says_it_is() -> None:
    import torch

    local_cuda._torch_is_built_for_cuda.cache_clear()
    assert local_cuda._torch_is_built_for_cuda() == (torch.version.cuda is not None)
