from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_cells
import pytest

import profiler
from profiler import noise, report, studies, sweep
from profiler.record import Record
from profiler.spec import RunSpec
from profiler.store import Store

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
DRIVER = [sys.executable, str(Path(__file__).with_name("sweep_driver.py"))]

STUDY = '''"""A study of nothing.

More words.
"""
from profiler import RunSpec

def study(quick=False):
    sizes = (1,) if quick else (1, 2)
    return [RunSpec(model="tiny", method=m, batch_size=b) for m in ("ok", "ok 2") for b in sizes]
'''


class Command:
    """Runs the command line in this process, over fake cells."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        code = sweep.main(["--workers", "1", *arguments])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self) -> list[dict[str, Any]]:
        data = json.loads(self.out)
        assert isinstance(data, list)
        return data


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    for name, module in fake_cells.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(report, "build", fake_cells.build)
    monkeypatch.setattr(noise, "hush", lambda: None)
    monkeypatch.chdir(tmp_path)
    return Command(capsys)


def test_a_grid_gives_a_table_a_page_and_the_records(command: Command) -> None:
    assert command("--model", "tiny", "--method", "ok", "--method", "ok 2") == 0
    assert "3.00" in command.out
    assert "predicted" in command.out
    assert "simulated" in command.out
    assert "\x1b" not in command.out + command.err
    page = Path("reports", "sweep", "index.html")
    assert command.out.splitlines()[-1] == f"report: {page}"
    assert "--model tiny" in page.read_text()
    assert len(Store("reports/sweep").all()) == 2


def test_json_is_one_array_of_the_records_and_nothing_else(command: Command) -> None:
    assert command("--model", "tiny", "--batch-size", "2", "--batch-size", "1", "--format", "json",
                   "--output", "out") == 0  # fmt: skip
    assert [one["spec"]["batch_size"] for one in command.json()] == [2, 1]
    stored = {one.id: one.to_dict() for one in Store("out").all()}
    assert {one["id"]: one for one in command.json()} == stored
    assert "report: out/index.html" in command.err


def test_csv_is_a_row_for_each_record(command: Command) -> None:
    assert (
        command("--model", "tiny", "--method", "ok", "--method", 'a,"b"\n', "--format", "csv") == 0
    )
    rows = list(csv.DictReader(io.StringIO(command.out)))
    assert [row["spec.method.label"] for row in rows] == ["ok", 'a,"b"\n']
    assert rows[0]["memory.peak_allocated"] == str(3 * 2**30)
    assert rows[0]["memory.at_peak.activations"] == str(3 * 2**30)


def test_quiet_leaves_stderr_to_warnings(command: Command) -> None:
    assert command("--model", "tiny", "--quiet", "--format", "json") == 0
    assert command.err == ""
    assert command("--model", "tiny", "--method", "failed", "--quiet") == 1
    assert "as asked" in command.err


def test_a_long_label_is_shown_whole_and_as_it_is(command: Command) -> None:
    label = "ok:[bold]x[/bold]:smile:<script>" + "y" * 300
    assert command("--model", "tiny", "--method", label) == 0
    assert label in command.out


def test_a_name_that_is_no_text_is_shown(command: Command) -> None:
    assert command("--model", os.fsdecode(b"\xff"), "--format", "json") == 0
    assert command.json()[0]["spec"]["model"] == "\udcff"
    assert command("--model", os.fsdecode(b"\xff")) == 0


@pytest.mark.parametrize(
    ("methods", "code"),
    [
        (["ok"], 0),
        (["ok", "unsupported x"], 0),
        (["oom"], 0),
        (["oom measured"], 1),
        (["ok", "failed"], 1),
        (["raise", "ok"], 1),
    ],
)
def test_the_exit_status_says_whether_every_cell_has_a_result(
    command: Command, methods: list[str], code: int
) -> None:
    flags = [word for method in methods for word in ("--method", method)]
    assert command("--model", "tiny", "--format", "json", *flags) == code
    assert [one["spec"]["method"]["label"] for one in command.json()] == methods
    assert command("--model", "tiny", "--format", "json", *flags) == code, "when reused"


WRONG = {
    "unknown flag": (["--bacth-size", "2"], "did you mean --batch-size?"),
    "a flag cut short": (["--mod", "tiny"], "--model"),
    "an unknown study": (["opt_6_7"], "did you mean opt_6_7b"),
    "a study file that is not there": (["none.py"], "none.py"),
    "two studies": (["opt_6_7b", "opt_6_7b"], "unexpected argument"),
    "no value": (["--model"], "--model"),
    "no number": (["--model", "tiny", "--batch-size", "two"], "must be a whole number, not 'two'"),
    "a batch of 0": (["--model", "tiny", "--batch-size", "0"], "at least 1, not 0"),
    "a negative length": (["--model", "tiny", "--seq-len", "-5"], "at least 1, not -5"),
    "no choice": (["--model", "tiny", "--stack", "scipt"], "did you mean script?"),
    "not built": (["--model", "tiny", "--loss", "liger"], "not built yet"),
    "neither true nor false": (["--model", "tiny", "--use-cache", "maybe"], "true or false"),
    "not finite": (["--model", "tiny", "--grad-clip", "nan"], "finite"),
    "given twice": (["--model", "tiny", "--seed", "1", "--seed", "2"], "--seed is given twice"),
    "no format": (["--model", "tiny", "--format", "jsno"], "did you mean json?"),
    "no workers": (["--model", "tiny", "--workers", "0"], "--workers must be at least 1"),
    "no time": (["--model", "tiny", "--timeout", "0"], "--timeout must be more than 0"),
    "no length of time": (["--model", "tiny", "--timeout", "nan"], "--timeout must be more than 0"),
    "no filter": (["--model", "tiny", "--filter", "a and"], "--filter"),
    "a filter that leaves nothing": (["--model", "tiny", "--filter", "b"], "leaves none"),
    "quick without a study": (["--model", "tiny", "--quick"], "--quick"),
    "an empty model": (["--model", ""], "--model is empty"),
    "one bad cell": (["--model", "tiny", "--method", "ok", "--method", "unknown"], "mean lora?"),
    "unresolvable": (["--model", "tiny", "--method", "ok", "--method", "unresolvable"], "option"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_one_line_and_nothing_is_run(command: Command, case: str) -> None:
    arguments, words = WRONG[case]
    assert command(*arguments) == 2
    assert command.out == ""
    assert command.err.startswith("profiler.sweep: error: ")
    assert command.err.count("\n") == 1
    assert words in command.err
    assert not Path("reports").exists()


def test_wrong_usage_with_odd_letters_is_still_one_line(command: Command) -> None:
    assert command("--model", "tiny", "--stack", "a\nb\x1b[31m\r") == 2
    assert command.err.count("\n") == 1
    assert "\x1b" not in command.err


def test_wrong_usage_found_while_running_leaves_the_others_results(command: Command) -> None:
    methods = ["--method", "usage", "--method", "ok"]
    assert command("--model", "tiny", "--format", "json", "--quiet", *methods) == 2
    assert [one["spec"]["method"]["label"] for one in command.json()] == ["ok"]
    assert re.fullmatch(
        r"profiler\.sweep: error: the target module matches nothing \(in tiny usage .+\)\n",
        command.err,
    )
    assert command("--model", "tiny", "--method", "usage", "--quiet") == 2
    assert command.out == ""


def test_what_a_measured_cell_may_take_reaches_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def run(made: RunSpec, **options: Any) -> Record:
        seen.append(options)
        return fake_cells.run(made)

    monkeypatch.setattr(sys.modules["profiler.execute"], "run", run)
    assert command("--model", "tiny", "--device", "cpu", "--ignore-memory", "--timeout", "9") == 0
    assert command("--model", "tiny", "--device", "cpu", "--overwrite") == 0
    options = {"ignore_memory": True, "timeout": 9.0, "traces": None, "full_trace": False}
    assert seen[0] == options
    assert seen[1]["ignore_memory"] is False
    assert seen[1]["timeout"] > 60


def test_a_dry_run_lists_the_cells_and_runs_none(command: Command) -> None:
    flags = ["--model", "tiny", "--method", "ok", "--method", "raise", "--method", "unsupported"]
    assert command(*flags, "--dry-run") == 0
    assert all(method in command.out for method in ("ok", "raise", "unsupported"))
    assert not Path("reports").exists()
    assert command("--model", "tiny", "--method", "ok") == 0
    assert command(*flags, "--dry-run", "--format", "json") == 0
    assert [(one["spec"]["method"], one["stored"]) for one in command.json()] == [
        ("ok", True), ("raise", False), ("unsupported", False),
    ]  # fmt: skip
    assert command(*flags, "--dry-run", "--format", "csv") == 0
    assert len(list(csv.DictReader(io.StringIO(command.out)))) == 3


def test_a_study_runs_by_path_and_flags_replace_its_fields(command: Command) -> None:
    Path("nothing.py").write_text(STUDY)
    assert command("nothing.py", "--format", "json") == 0
    assert len(command.json()) == 4
    assert Path("reports/nothing/index.html").read_text().startswith("A study of nothing:")
    assert command("nothing.py", "--quick", "--format", "json") == 0
    assert len(command.json()) == 2
    assert command("nothing.py", "--batch-size", "8", "--format", "json") == 0
    assert [one["spec"]["batch_size"] for one in command.json()] == [8, 8]
    assert command("nothing.py", "--filter", "not 2", "--format", "json") == 0
    assert [one["spec"]["method"]["label"] for one in command.json()] == ["ok", "ok"]


@pytest.mark.parametrize(
    "text",
    ["", "x = ", "raise KeyError('k')", "def study(quick): return 3", "def study(quick): return []",
     "def study(quick): return ['lora']", "def study(): return []",
     "from profiler import RunSpec\ndef study(quick): return [RunSpec(model='m', batch_size=0)]"],
)  # fmt: skip
def test_a_study_that_is_none_is_wrong_usage(command: Command, text: str) -> None:
    Path("bad.py").write_text(text)
    assert command("bad.py") == 2
    assert command.out == ""
    assert re.fullmatch(r"profiler\.sweep: error: study bad\.py: .+\n", command.err)


@pytest.mark.parametrize("name", studies.names())
@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_studies_can_be_loaded(name: str, quick: bool) -> None:
    study = studies.load(name, quick=quick)
    assert study.name == name
    assert study.title
    assert len(study.cells) == len(set(study.cells))


def test_without_a_study_or_a_model_the_default_study_runs(command: Command) -> None:
    assert command("--dry-run", "--format", "json") == 0
    cells = studies.load(studies.DEFAULT).cells
    assert [one["spec"] for one in command.json()] == [cell.to_dict() for cell in cells]


def test_an_output_that_cannot_be_written_is_one_line(command: Command) -> None:
    Path("file").touch()
    assert command("--model", "tiny", "--output", "file") == 1
    assert command.out == ""
    assert re.fullmatch(r"profiler\.sweep: error: cannot write in file/records: .+\n", command.err)


def test_help_lists_every_flag_once_and_version_the_version(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--help") == 0
    for flag in ("--model", "--no-padded", "--use-cache", "--device", "--retry-failed"):
        assert len(re.findall(rf"^  (?:--\S+, )?{flag}(?=[ \n])", command.out, re.M)) == 1
    assert "--workload" not in command.out
    assert command("--version") == 0
    assert profiler.__version__ in command.out


@pytest.mark.parametrize("arguments", [["--help"], ["--stack", "x"], ["--version"], ["nothing"]])
def test_what_needs_no_run_loads_no_heavy_library(arguments: list[str]) -> None:
    code = (
        "import sys; from profiler import sweep; sweep.main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'peft', 'pandas', 'numpy', 'pydantic', 'rich'};"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_package_gives_its_functions_whatever_was_imported_before() -> None:
    code = (
        "import sys, fake_cells; sys.modules.update(fake_cells.modules());"
        "import profiler; first = profiler.resolve; import profiler.resolve;"
        "from profiler.resolve import resolve;"
        "assert first is resolve is profiler.resolve is fake_cells.resolve;"
        "assert profiler.run is fake_cells.run;"
        "assert profiler.RunSpec and profiler.Record"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*DRIVER, "--model", "tiny", "--method", "ok " + "x" * 100_000, "--quiet"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert Store(tmp_path / "reports" / "sweep").all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*DRIVER, "--model", "tiny", "--quiet", "--format", "json"],
            cwd=tmp_path, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(r"profiler\.sweep: error: .+\n", done.stderr)


def test_ctrl_c_ends_at_once_with_130_and_keeps_what_is_done(tmp_path: Path) -> None:
    methods = ["--method", "ok", "--method", f"hang {tmp_path}", "--method", "ok 2"]
    with subprocess.Popen(
        [*DRIVER, "--model", "tiny", "--workers", "1", "--quiet", *methods],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 60
        while not (tmp_path / str(process.pid)).exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert re.fullmatch(r"profiler\.sweep: interrupted.+\n", err)
    assert [one.label for one in Store(tmp_path / "reports" / "sweep").all()] == ["ok"]


def test_colour_only_on_a_terminal_and_not_with_no_color(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    shown = {}
    for name in ("", "1"):
        environment = {key: value for key, value in ENVIRONMENT.items() if key != "NO_COLOR"}
        if name:
            environment["NO_COLOR"] = name
        environment["TERM"] = "xterm-256color"
        master, slave = pty.openpty()
        with subprocess.Popen(
            [*DRIVER, "--model", "tiny"], cwd=tmp_path, env=environment, stdout=slave, stderr=slave
        ):
            os.close(slave)
            parts = []
            try:
                while part := os.read(master, 65536):
                    parts.append(part)
            except OSError:  # the terminal is closed
                pass
        os.close(master)
        shown[name] = b"".join(parts).decode()
    colour = re.compile(r"\x1b\[(?:\d+;)*[349][0-7](?:;\d+)*m")
    assert colour.search(shown[""])
    assert not colour.search(shown["1"])
