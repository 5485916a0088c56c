"""Where `--executor` sends cells, when that is not this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.errors import UsageError, unknown
from profiler.executors import Pool

#: What `--executor` takes; the last two send cells elsewhere.
EXECUTORS = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Elsewhere:
    """A cluster. `kind` is `ray` or `slurm`, `folder` one that SLURM's machines all see."""

    kind: str
    address: str | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    def pool(self, device: str) -> Pool:
        """An executor for cells of a device: one that is measured on a GPU has that for itself,
        one that is measured on a CPU its machine.

        Raises:
            UsageError: the cluster is not to be had.
        """
        gpus, alone = int(device == "cuda"), device == "cpu"
        if self.kind == "ray":
            from profiler.executors.on_ray import RayExecutor

            return RayExecutor(self.address, gpus=gpus, alone=alone)
        from profiler.executors.on_slurm import SlurmExecutor

        return SlurmExecutor(self.folder, self.slurm, gpus=gpus, alone=alone)


def asked_for(
    kind: str, address: str | None, slurm_args: Sequence[str], output: Path
) -> Elsewhere | None:
    """What the flags name; None for this machine.

    Raises:
        UsageError: they name nothing, or do not go together.
    """
    if kind not in EXECUTORS:
        raise unknown("value for --executor:", kind, EXECUTORS)
    if address is not None and kind != "ray":
        raise UsageError("--address is that of a Ray cluster; add --executor ray")
    if slurm_args and kind != "slurm":
        raise UsageError("--slurm-args are SLURM's; add --executor slurm")
    if kind == "local":
        return None
    return Elsewhere(kind, address, _parameters(slurm_args), output / "jobs")


def _parameters(words: Sequence[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key.isidentifier():
            raise UsageError(f"--slurm-args {word!r}: write KEY=VALUE, such as timeout_min=60")
        parameters[key] = int(value) if value.isascii() and value.isdigit() else value
    return parameters
