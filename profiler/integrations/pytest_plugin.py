"""The `peft_profile` fixture: a test whose memory, FLOPs and counts are held to a baseline.

    def test_memory(peft_profile):
        record = peft_profile(model="opt-125m", method="lora:r=8", device="rtx-4090", seq_len=128)
        peft_profile.check(record)

pytest loads this module at every start, so nothing heavy is imported before the fixture is used.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from profiler.record import Record

#: Names the environment variable with the checkout whose files are to be imported, and the file
#: beside the records that tells of others (`profiler.checkouts`).
HOME = "PEFT_PROFILE_CHECKOUT"
FOREIGN = "foreign.txt"

#: Under these names a test's report carries what the summary tells, from any worker.
_WRITTEN = "peft_profile_written"
_ACROSS = "peft_profile_across"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("peft-profile", "memory and FLOPs of fine-tuning (peft_profile)")
    group.addoption(
        "--peft-update",
        action="store_true",
        help="write the baselines of the tests that run, instead of holding records to them",
    )
    group.addoption(
        "--peft-across-versions",
        action="store_true",
        help="hold records to baselines of other library versions, too, and say so",
    )
    group.addoption(
        "--peft-records",
        metavar="DIR",
        help="keep each checked record in this folder, for python -m profiler.diff",
    )
    group.addoption(
        "--peft-keep-only",
        action="store_true",
        help="with --peft-records: hold records to no baseline and write none",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell of modules that a checkout's tests imported from elsewhere in the same repository."""
    home, folder = os.environ.get(HOME), session.config.getoption("--peft-records")
    if not home or not folder or not Path(folder).is_dir():
        return
    names = {path.stem for path in Path(home).glob("*.py")}
    for place in (Path(home), Path(home) / "src"):
        names |= {path.parent.name for path in place.glob("*/__init__.py")}
    foreign = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        own = name.partition(".")[0] in names
        if own and file and not Path(file).resolve().is_relative_to(Path(home).resolve()):
            foreign.append(f"{name} from {file}")
    if foreign:
        (Path(folder) / FOREIGN).write_text(", ".join(sorted(foreign)[:3]))


class PeftProfile:
    """What the fixture gives: call it to run a cell, then `check` its record."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node = request.node
        self._config = request.config
        self._checked: set[Path] = set()

    def __call__(self, **fields: Any) -> Record:
        """Run a cell, by the fields of `profiler.RunSpec` (the flags of `profiler.sweep`).

        Relative paths, as in `method="./mine.py:Mine"`, start at pytest's root directory. The
        test fails where a field is wrong.
        """
        __tracebackhide__ = True
        from profiler.errors import ProfilerError
        from profiler.noise import quiet

        try:
            with contextlib.chdir(self._config.rootpath), quiet():
                from profiler.execute import run
                from profiler.spec import RunSpec

                return run(RunSpec(**fields))
        except (ProfilerError, TypeError) as error:
            if isinstance(error, TypeError) and "RunSpec" not in str(error):
                raise
            _fail(str(error).replace("RunSpec.__init__()", "peft_profile()"))

    def time(self, benchmark: Any, *, rounds: int = 5, **fields: Any) -> None:
        """Time a cell's steps, really run on this machine, with pytest-benchmark's fixture.

        pytest-benchmark stores and compares the times (`--benchmark-autosave`,
        `--benchmark-compare`). Those of another machine or of other libraries are left out of a
        comparison, which says so, unless `--peft-across-versions` is given.

        Args:
            rounds: steps that are timed.
            fields: as of a call; the device is `cpu` unless given.
        """
        __tracebackhide__ = True
        from profiler.errors import ProfilerError
        from profiler.noise import quiet

        try:
            with contextlib.chdir(self._config.rootpath), quiet():
                from profiler.integrations import timed_tests
                from profiler.spec import RunSpec

                timed_tests.time_steps(benchmark, RunSpec(**{"device": "cpu", **fields}), rounds)
        except (ProfilerError, TypeError) as error:
            if isinstance(error, TypeError) and "RunSpec" not in str(error):
                raise
            _fail(str(error).replace("RunSpec.__init__()", "peft_profile.time()"))

    def check(self, record: Record, *, tolerance: str | None = None, name: str = "") -> None:
        """Hold a record to the test's baseline: bytes, FLOPs and parameter counts, to the unit.

        Args:
            tolerance: how far a figure may be from the baseline's, either way: a share ("0.1%") of
                any, or a size ("64MiB") of those in bytes.
            name: tells several records of one test apart.
        """
        __tracebackhide__ = True
        from profiler.errors import ProfilerError
        from profiler.integrations import baselines
        from profiler.record import Record

        if not isinstance(record, Record):
            _fail(f"check() takes the record that peft_profile(...) returned, not {record!r:.60}")
        if not record.answered:
            _fail(f"the run {record.status}: {record.error}")
        path = baselines.path_of(self._node.path, self._node.nodeid.partition("::")[2], name)
        if path in self._checked:
            _fail("two records of one test need names: check(record, name='...')")
        self._checked.add(path)
        try:
            limit = baselines.tolerance_of(tolerance)
            self._keep(record, name)
            if self._config.getoption("--peft-keep-only"):
                return
            if self._config.getoption("--peft-update"):
                self._update(path, record)
                return
            baseline = baselines.read(path)
            if baseline is None:
                _fail(f"no baseline at {self._shown(path)}; write it with: {self._command()}")
            apart = baselines.across(baseline, record)
            if apart and not self._config.getoption("--peft-across-versions"):
                _fail(
                    f"the baseline {self._shown(path)} is of another environment: {apart}; "
                    f"write it again with: {self._command()}, or compare all the same with "
                    "--peft-across-versions"
                )
            if apart:
                self._tell(_ACROSS, f"{self._shown(path)}: {apart}")
            reason = baselines.judge(baseline, record, limit, self._shown(path))
        except ProfilerError as error:
            _fail(str(error))
        if reason:
            also = f"\nThe baseline is of another environment: {apart}." if apart else ""
            _fail(f"{reason}{also}\nIf this is meant, write the baseline again: {self._command()}")

    def _update(self, path: Path, record: Record) -> None:
        from profiler.errors import StoreError
        from profiler.integrations import baselines

        try:
            before = baselines.read(path)
        except StoreError:  # it is broken, and this is how it is mended
            before = None
        if before is not None and before.to_dict() == baselines.kept(record).to_dict():
            return
        baselines.write(path, record)
        self._tell(_WRITTEN, self._shown(path))

    def _keep(self, record: Record, name: str) -> None:
        """Keep the record where `--peft-records` says."""
        folder = self._config.getoption("--peft-records")
        if folder:
            from profiler.integrations import baselines

            whole = f"{self._node.nodeid}:{name}" if name else self._node.nodeid
            start = self._config.invocation_params.dir
            baselines.write(start / folder / f"{baselines.safe_name(whole)}.json", record)

    def _tell(self, key: str, text: str) -> None:
        self._node.user_properties.append((key, text))

    def _shown(self, path: Path) -> str:
        try:
            return path.relative_to(self._config.invocation_params.dir).as_posix()
        except ValueError:
            return str(path)

    def _command(self) -> str:
        """What writes this test's baseline, typed where pytest was started."""
        file, _, test = self._node.nodeid.partition("::")
        file = self._shown(self._config.rootpath / file)
        return f"pytest --peft-update {shlex.quote(f'{file}::{test}')}"


def _fail(text: str) -> NoReturn:
    """Fail the test: the text is all there is to read, no traceback above it."""
    pytest.fail(text, pytrace=False)


@pytest.fixture
def peft_profile(request: pytest.FixtureRequest) -> PeftProfile:
    """Run one fine-tuning step, simulated or measured, and hold its record to a baseline."""
    return PeftProfile(request)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, benchmarksession: Any, compared_benchmark: dict[str, Any]
) -> None:
    """Leave out of pytest-benchmark's comparison what was timed elsewhere or with other libraries,
    where it would only warn."""
    stored = compared_benchmark.get("benchmarks") or []
    if not any("peft_profile" in (one.get("extra_info") or {}) for one in stored):
        return
    from profiler.integrations.timed_tests import incomparable

    across = config.getoption("--peft-across-versions")
    kept = []
    for one in stored:
        reason = incomparable(one)
        if reason:
            what = "compared all the same" if across else "not compared (--peft-across-versions)"
            benchmarksession.logger.warning(f"{one['fullname']}: {what}: {reason}")
        if across or not reason:
            kept.append(one)
    compared_benchmark["benchmarks"] = kept


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for key, heading in (
        (_WRITTEN, "baseline written"),
        (_ACROSS, "compared with a baseline of another environment"),
    ):
        for text in dict.fromkeys(_told(terminalreporter, key)):
            terminalreporter.write_line(f"peft_profile: {heading}: {text}")


def _told(terminalreporter: Any, key: str) -> Iterator[str]:
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                yield from (text for name, text in report.user_properties if name == key)
