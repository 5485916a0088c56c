"""A user's own measured runs: their records, and the simulations that stand for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from profiler.errors import StoreError, UsageError
from profiler.files import replace_file
from profiler.hardware import devices
from profiler.record import Record
from profiler.report.pairs import is_card
from profiler.spec import RunSpec
from profiler.validation.compare import Entry, Wanted
from profiler.validation.metrics import METRICS
from profiler.validation.result import GroupInfo, RunInfo

#: The group's id.
ROWS = "rows"

#: Relative error that is claimed not to be exceeded, where a metric has another than `BOUND`.
_BOUNDS: dict[str, float | None] = {
    "params.total": 0.0,
    "params.trainable": 0.0,
    "params.adapter_file_bytes": 0.0,
    # The context of a card is the table's, and the time a model's.
    "device_total": None,
    "time.step": None,
}
BOUND = 0.01
#: What nothing predicts of a CPU.
_OF_A_CARD = frozenset(("time.step", "load_peak", "load.after_allocated"))


def read(paths: Iterable[Path]) -> list[Record]:
    """The records of files and folders.

    A file holds a record, or an array of them (what a sweep prints with `--format json`); a folder
    holds such files, or a study's `records/`.

    Raises:
        UsageError: nothing is there, a file is no record, or a record is not a measured result.
    """
    found: list[Record] = []
    for path in paths:
        files = [path]
        if path.is_dir():
            folder = path / "records" if (path / "records").is_dir() else path
            files = sorted(item for item in folder.glob("*.json") if not item.name.startswith("."))
            if not files:
                raise UsageError(
                    f"--rows {path}: no records in it; give a file, or a folder of them"
                )
        for file in files:
            found += _read(file)
    for record in found:
        _check(record)
    return found


def _read(file: Path) -> list[Record]:
    try:
        data = json.loads(file.read_bytes())
        return [Record.from_dict(one) for one in (data if isinstance(data, list) else [data])]
    except OSError as error:
        raise UsageError(f"--rows {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--rows {file}: not a record: {error}") from None
    except StoreError as error:
        raise UsageError(f"--rows {file}: {error}") from None


def _check(record: Record) -> None:
    if record.source != "measured":
        raise UsageError(
            f"--rows: {record.id} is a {record.source} record; a row is a measured one, "
            "of a run with --device cuda or --device cpu"
        )
    if record.status != "ok":
        raise UsageError(f"--rows: {record.id} has no result ({record.status}); leave it out")


def entries(records: Sequence[Record], folder: Path, *, device: str | None = None) -> list[Entry]:
    """The simulations of measured runs, as the machines they were measured on.

    Args:
        folder: Takes the model and adapter configs that are no shipped ones.
        device: The card that runs with `--device cuda` were measured on; by default it is found
            by the name that its driver gave.

    Raises:
        UsageError: a card is not known, or a record's spec cannot be run again.
    """
    made: list[Entry] = []
    taken: dict[str, int] = {}
    for record in records:
        label = _label(record)
        taken[label] = taken.get(label, 0) + 1
        name = label if taken[label] == 1 else f"{label} #{taken[label]}"
        made.append(
            Entry(
                case=name,
                group=ROWS,
                run="step",
                spec=spec_of(record, folder, device=device),
                wanted=tuple(_wanted(record)),
                versions=_versions(record),
                how="measured",
            )
        )
    return made


def _versions(record: Record) -> dict[str, str]:
    """What can make the simulation differ from the measured run."""
    keys = ["profiler", "torch", "transformers", "peft", "bitsandbytes", "accelerate"]
    keys += ["cpu"] if record.spec.get("device") == "cpu" else []
    found = record.environment
    return {key: str(found[key]) for key in keys if found.get(key)}


def _label(record: Record) -> str:
    spec = record.spec
    size = f"{spec.get('batch_size')}x{spec.get('seq_len')}"
    return f"{spec.get('model')} {record.label} {spec.get('device')} {size}"


def _wanted(record: Record) -> Iterable[Wanted]:
    """All that the record holds and a simulation of its machine predicts."""
    on_cpu = record.spec.get("device") == "cpu"
    for name, metric in METRICS.items():
        number = metric.read(record)
        if number is None or (on_cpu and name in _OF_A_CARD):
            continue
        yield Wanted(metric=name, measured=number, bound=_BOUNDS.get(name, BOUND))


def spec_of(record: Record, folder: Path, *, device: str | None = None) -> RunSpec:
    """The simulation of what a measured record's spec says; `device` as in `entries`.

    Raises:
        UsageError: the card is not known, or the method cannot be read back.
    """
    fields: dict[str, Any] = dict(record.spec)
    if fields.get("lengths") is not None:
        raise UsageError(
            f"--rows: {record.id} is a run of many lengths, of a file that a record does not hold"
        )
    config = fields.pop("model_config", None)
    method = fields.pop("method")
    fields["device"] = _device(record, device)
    fields["method"] = _method(record, method, folder)
    if config is not None:
        fields["model"] = _model(record, config, folder)
        fields["model_override"] = []
    try:
        return RunSpec.from_dict(fields)
    except UsageError as error:
        raise UsageError(f"--rows: {record.id}: {error}") from None


def _device(record: Record, named: str | None) -> str:
    if record.spec.get("device") == "cpu":
        return "sim:cpu"
    if named is not None:
        return devices.device(named).key
    card = str(record.environment.get("device") or "")
    found = [key for key in devices.names() if is_card(card, key)]
    # "NVIDIA A100-SXM4-80GB" is one, and a driver that says too little is none or several.
    if len(found) == 1:
        return found[0]
    hint = f" (it may be {' or '.join(found)})" if found else ""
    raise UsageError(
        f"--rows: {record.id} was measured on {card or 'a card without a name'!r}, which is not "
        f"one card of hardware.toml{hint}; name it with --device"
    )


def _model(record: Record, config: dict[str, Any], folder: Path) -> str:
    """A model's name if it is a shipped one, else the path of its config."""
    from profiler.subject import models

    name = str(record.spec["model"])
    if name in models.names() and models.load(name).config == config:
        return name
    stem = "".join(one if one.isalnum() or one in "-._" else "-" for one in name).strip(".-")
    home = folder / "models" / record.id / (stem or "model")
    replace_file(home / "config.json", json.dumps(config, indent=1).encode())
    return str(home)


def _method(record: Record, method: Any, folder: Path) -> str:
    """What `--method` took: a preset with its options, or the path of an adapter config."""
    from profiler.subject import methods

    if not isinstance(method, dict):
        return str(method)
    preset, options = str(method.get("preset")), method.get("options") or {}
    if "&" in preset or ".py:" in preset:
        if ".py:" in preset:
            raise UsageError(
                f"--rows: {record.id} has a method of a file of its own, {preset}, which a record "
                "does not hold"
            )
        return record.label
    if preset in methods.names():
        words = ",".join(f"{key}={_option(value)}" for key, value in options.items())
        return f"{preset}:{words}" if words else preset
    file = folder / "models" / record.id / "adapter_config.json"
    replace_file(file, json.dumps({"peft_type": preset, **options}, indent=1).encode())
    return str(file)


def _option(value: Any) -> str:
    """A value as `--method` reads it: what is not a number or a truth is JSON."""
    if value is None:
        return "none"
    return str(value) if isinstance(value, int | float) else json.dumps(value)


def group_info(records: Sequence[Record], paths: Sequence[Path]) -> GroupInfo:
    """What the result keeps of the rows."""
    cards = sorted(
        {str(one.environment.get("device") or one.environment.get("cpu")) for one in records}
    )
    return GroupInfo(
        id=ROWS,
        title="Measured rows given with --rows",
        source=", ".join(str(path) for path in paths),
        card=", ".join(cards),
        runs=[
            RunInfo(name="step", about="the step of the record, on the machine it was measured on")
        ],
        given=True,
    )
