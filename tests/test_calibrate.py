"""The command: a quick calibration, what it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from profiles import content, profile

import profiler
from profiler import calibrate, sweep
from profiler.calibration import cpu, host, kernels, products
from profiler.errors import NotBuiltError, UsageError
from profiler.hardware import device_profile, local_cuda
from profiler.hardware.device_profile import DeviceProfile
from profiler.resolve import resolve
from profiler.spec import RunSpec


@dataclass
class Quick:
    file: Path
    profile: DeviceProfile
    out: str
    err: str


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """A quick calibration, at sizes smaller yet."""
    file = tmp_path_factory.mktemp("calibration") / "deep" / "cpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "QUICK_SIZES", (4, 16))
        patch.setattr(kernels, "QUICK_SIZES", (1 << 10, 1 << 12))
        patch.setattr(host, "QUICK_STEPS", 1)
        patch.setattr(cpu, "QUICK_LEAST", 1e-5)
        status, out, err = command("--quick", "--threads", "1", "--output", file)
    assert status == 0, err
    return Quick(file, device_profile.read(file), out, err)


def command(*arguments: str | Path) -> tuple[int, str, str]:
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = calibrate.main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def test_it_writes_a_valid_profile_of_this_machine(quick: Quick) -> None:
    found = quick.profile
    assert (found.kind, found.threads, found.quick) == ("cpu", 1, True)
    assert found.environment["torch"]
    assert found.name == found.environment["cpu"]
    ops = {curve.op for curve in found.kernels}
    assert {"aten.add", "aten.mul", "aten.silu", "aten._to_copy", "aten.native_layer_norm"} <= ops
    assert {"aten._fused_adamw_", "aten._log_softmax", "aten.add, transposed"} <= ops
    for dtype in ("float32", "bfloat16"):
        layouts = {one.layout for one in found.products if (one.op, one.dtype) == ("mm", dtype)}
        assert layouts == {"nn", "nt", "tn"}
    assert {one.op.endswith("_backward") for one in found.attention} == {True, False}


def test_it_says_what_was_measured_and_where_it_is(quick: Quick) -> None:
    assert "GFLOP/s" in quick.out
    assert "for a try, not for figures" in quick.out
    assert quick.out.splitlines()[-1] == f"profile: {quick.file}"
    assert [line.split(": ", 1)[1] for line in quick.err.splitlines()] == [
        f"{part} ..." for part in cpu.PARTS
    ]


def test_torch_computes_with_as_many_threads_as_before(quick: Quick) -> None:
    import torch

    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "_measured", lambda *_: profile())
        cpu.calibrate(threads=before + 1, quick=True)
    assert torch.get_num_threads() == before


def test_a_step_is_predicted_from_it(quick: Quick, tmp_path: Path) -> None:
    model = tiny.write(tmp_path)["llama"]
    spec = RunSpec(
        model=model, method="lora", seq_len=16, device="sim:cpu", calibration=str(quick.file)
    )
    record = profiler.run(spec)
    assert record.status == "ok", record.error
    assert record.time is not None
    assert record.time.source == "predicted"
    assert record.time.step > 0
    assert record.time.step == pytest.approx(sum(record.time.phases.values()))
    assert record.spec["calibration"] == quick.profile.summary()
    assert any("quick one" in line for line in record.approximations)
    assert str(quick.file) not in record.to_json()
    plain = profiler.run(spec.replace(calibration=None))
    assert plain.time is None
    assert plain.memory == record.memory


def test_the_cell_goes_by_the_profile_and_not_by_its_file(tmp_path: Path) -> None:
    def identity(**changes: float) -> str:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        profile(**changes).write(file)
        return resolve(RunSpec(model="opt-125m", device="sim:cpu", calibration=str(file))).id

    assert identity() == identity() != identity(fault=2e-9)


@pytest.mark.parametrize(
    ("device", "changes", "said"),
    [
        ("cpu", {}, "--device cpu measures them"),
        ("rtx-4090", {}, "of a CPU, Abacus"),
        ("sim:cpu", {"kind": "cuda"}, "of a GPU, Abacus"),
        ("sim:cpu", {"threads": -1}, "not a device profile: threads"),
    ],
)
def test_a_profile_of_something_else_is_refused(
    tmp_path: Path, device: str, changes: dict[str, object], said: str
) -> None:
    file = tmp_path / "cpu.json"
    file.write_text(json.dumps(content(**changes)))
    with pytest.raises(UsageError) as error:
        resolve(RunSpec(model="opt-125m", device=device, calibration=str(file)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_history_of_lengths_has_no_calibrated_time_yet(tmp_path: Path) -> None:
    file, lengths = tmp_path / "cpu.json", tmp_path / "lengths.txt"
    profile().write(file)
    lengths.write_text("5\n7\n")
    spec = RunSpec(model="opt-125m", device="sim:cpu", calibration=str(file), lengths=str(lengths))
    with pytest.raises(NotBuiltError, match="--calibration with --lengths"):
        resolve(spec)


def test_a_corrupted_profile_is_one_line_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cpu.json"
    file.write_text('{"schema": 1, "kind": ')
    status = sweep.main(["--model", "opt-125m", "--device", "sim:cpu", "--calibration", str(file)])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert f"{file}: not a device profile" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "0"], "--threads"),
        (["--threads", "two"], "--threads"),
        (["--format", "yaml"], "--format"),
        (["--device", "tpu"], "--device"),
        (["--device", "cuda", "--threads", "2"], "--threads is the CPU's"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], said: str) -> None:
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    status, _, err = command("--output", tmp_path)
    assert status == 2
    assert f"--output {tmp_path} is a folder" in err


def test_without_a_gpu_none_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cuda, "missing", lambda: "there is none")
    status, _, err = command("--device", "cuda")
    assert status == 2
    assert "measures this machine's GPU, but there is none" in err


def test_ctrl_c_is_130_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> DeviceProfile:
        raise KeyboardInterrupt

    monkeypatch.setattr(cpu, "_measured", interrupted)
    file = tmp_path / "cpu.json"
    status, out, err = command("--output", file)
    assert (status, out) == (130, "")
    assert "interrupted; no profile is written" in err
    assert not file.exists()


def test_json_is_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_measured", lambda *_: profile())
    file = tmp_path / "cpu.json"
    status, out, err = command("--format", "json", "--quiet", "--output", file)
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(file.read_text())


def test_a_gpus_profile_takes_the_datasheets_place(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    profile(kind="cuda").write(file)
    model = tiny.write(tmp_path)["opt"]
    spec = RunSpec(model=model, seq_len=16, device="t4")
    usual, own = profiler.run(spec), profiler.run(spec.replace(calibration=str(file)))
    assert own.status == "ok", own.error
    assert usual.time is not None
    assert own.time is not None
    assert own.time.step != usual.time.step
    assert own.memory == usual.memory


def test_help_is_quick_and_without_torch() -> None:
    code = "import sys; from profiler import calibrate; calibrate.main(['--help']); "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'pydantic', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
