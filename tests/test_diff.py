"""`python -m profiler.diff`: from records on disk to what is said of them, and the exit status."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fake_cells
import pytest
from page_scripts import without_scripts
from tiny import write

from profiler import diff
from profiler.diff import main
from profiler.diff_text import escaped
from profiler.record import Record
from profiler.store import Store

HOSTILE = 'x|y <script>alert(1)</script> [a](http://b.c) `c` *d* @all\n# e\x1b[31m "'
MIB = 2**20

Save = Callable[..., str]


def record(method: str = "lora", peak: int = 100, **changes: Any) -> Record:
    """A record with one group of blocks; `spec` and `environment` are changed field by field."""
    made = fake_cells.record(fake_cells.spec(method, **changes.pop("spec", {})))
    data = made.to_dict()
    data["environment"] |= changes.pop("environment", {})
    group = {
        "category": "activations", "op": "aten.mul", "module": "model.layers.*.norm",
        "source": "m.py:1", "shape": [2], "dtype": "float32", "count": 2, "bytes": peak,
    }  # fmt: skip
    data["memory"] = {
        "peak_allocated": peak,
        "after_step_allocated": 10,
        "at_peak": {"activations": peak},
        "phases": {"backward": peak},
        "modules": {"model.layers.0.norm": {"activations": peak}},
        "holders": [group],
        **changes.pop("memory", {}),
    }
    return Record.from_dict({**data, **changes})


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Records as a study's folder, or one as a file."""

    def saved(name: str, *records: Record) -> str:
        if name.endswith(".json"):
            (tmp_path / name).write_text(records[0].to_json())
        else:
            for one in records:
                Store(tmp_path / name).put(one)
        return str(tmp_path / name)

    return saved


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def pairs(out: str) -> Any:
    return json.loads(out)["pairs"]


def test_equal_records_have_no_difference(save: Save, say: Any) -> None:
    path = save("a.json", record())
    status, out, err = say(path, path, "--fail-over", "0")
    assert (status, err) == (0, "")
    assert "equal in A and B: lora" in out
    (pair,) = pairs(say(path, path, "--format", "json")[1])
    assert all(one["change"] == 0 for one in pair["figures"].values())
    assert not any(pair["groups"].values())
    assert not pair["modules"]


def test_the_peak_is_told_down_to_op_module_and_line(save: Save, say: Any) -> None:
    after = record(peak=60 * MIB)
    after.memory.holders[0].dtype = "float64"
    paths = save("a.json", record(peak=20 * MIB)), save("b.json", after)
    for format in ("text", "markdown"):
        out = say(*paths, "--format", format)[1].replace("\\", "")
        assert "B holds 40.0 MiB more at the peak than A (+200 %)" in out
        assert "activations +40.0 MiB" in out
        assert "2 × aten.mul float64 instead of float32 [2] in layers.*.norm (m.py:1)" in out


def test_swapped_arguments_swap_the_signs(save: Save, say: Any) -> None:
    one, other = save("a.json", record()), save("b.json", record(peak=120))
    (there,) = pairs(say(one, other, "--format", "json")[1])
    (back,) = pairs(say(other, one, "--format", "json")[1])
    for level in ("figures", "at_peak"):
        changes = {name: value["change"] for name, value in there[level].items()}
        assert any(changes.values())
        assert {name: -value for name, value in changes.items()} == {
            name: value["change"] for name, value in back[level].items()
        }
    assert there["modules"] == {"layers.*.norm": 20}
    assert back["modules"] == {"layers.*.norm": -20}


def test_what_was_asked_and_what_it_ran_on_comes_first(save: Save, say: Any) -> None:
    before = record(environment={"transformers": "4.48.1"})
    after = record(peak=120, spec={"kbit_prepare": "peft"}, environment={"transformers": "5.23.0"})
    out = say(save("a.json", before), save("b.json", after))[1]
    assert out.index("kbit_prepare: – → peft") < out.index("transformers: 4.48.1 → 5.23.0")
    assert out.index("transformers: 4.48.1") < out.index("activations +20 bytes")


# --- pairs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [False, True])
def test_folders_pair_their_cells_and_list_the_others(save: Save, say: Any, inner: bool) -> None:
    before = save("a", record(), record("gone"), record("same"))
    after = save("b", record(peak=120), record("new"), record("same"))
    if inner:
        before, after = f"{before}/records", f"{after}/records"
    status, out, _ = say(before, after)
    assert status == 0
    assert re.search(r"^only in A: gone\b", out, re.MULTILINE)
    assert re.search(r"^only in B: new\b", out, re.MULTILINE)
    assert re.search(r"^equal in A and B: same\b", out, re.MULTILINE)


def test_a_study_run_again_otherwise_is_paired(save: Save, say: Any) -> None:
    before = [record(spec={"batch_size": size}, peak=size) for size in (1, 2)]
    after = [
        record(spec={"batch_size": size, "kbit_prepare": "peft"}, peak=2 * size) for size in (1, 2)
    ]
    out = say(save("a", *before), save("b", *after), "--format", "json")[1]
    changes = [pair["figures"]["peak_allocated"]["change"] for pair in pairs(out)]
    assert sorted(changes) == [1, 2]


def test_two_environments_of_one_folder_are_compared_the_older_first(save: Save, say: Any) -> None:
    old = record(peak=100, environment={"transformers": "5.0", "fingerprint": "zz"})
    new = record(peak=150, environment={"transformers": "4.0", "fingerprint": "aa"})
    folder = save("both", old, new)
    store = Store(folder)
    os.utime(store.path(old.id, "zz"), (1, 1))
    status, out, err = say(folder, "--format", "json")
    (pair,) = pairs(out)
    assert (status, err) == (0, "")
    assert pair["figures"]["peak_allocated"]["change"] == 50
    out = say(folder, "--between", "transformers=4.0", "zz", "--format", "json")[1]
    assert pairs(out)[0]["figures"]["peak_allocated"]["change"] == -50


def test_three_environments_must_be_chosen_from(save: Save, say: Any) -> None:
    made = [
        record(environment={"transformers": version, "fingerprint": version})
        for version in ("4.0", "4.5", "5.0")
    ]
    folder = save("all", *made)
    status, out, err = say(folder)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--between OLD NEW" in err
    assert "4.5 (transformers 4.5" in err
    assert say(folder, "--between", "4.0", "5.0")[0] == 0
    status, _, err = say(folder, "--between", "4.0", "6.0")
    assert (status, err.count("\n")) == (2, 1)


def test_older_records_of_a_cell_are_left_out_and_counted(save: Save, say: Any) -> None:
    old, new = (record(environment={"fingerprint": name}) for name in ("o", "n"))
    status, _, err = say(save("a", old, new), save("b", new))
    assert status == 0
    assert "1 older record" in err


def test_a_measured_record_is_never_silently_held_against_a_simulated_one(
    save: Save, say: Any
) -> None:
    before, after = record(source="measured"), record(peak=90)
    paths = save("a.json", before), save("b.json", after)
    for format in ("text", "markdown"):
        assert "A is measured and B is simulated" in say(*paths, "--format", format)[1]
    assert pairs(say(*paths, "--format", "json")[1])[0]["mixed_sources"]
    status, out, _ = say(*paths, "--fail-over", "50%")
    assert status == 1
    assert "was measured and is simulated" in out


# --- failing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peak", "limit", "status"),
    [
        (101, "1%", 0),
        (102, "1%", 1),
        (101, "1", 0),
        (102, "1", 1),
        (100, "0", 0),
        (101, "0%", 1),
        (50, "0", 0),
    ],
)
def test_only_more_than_the_limit_fails(
    save: Save, say: Any, peak: int, limit: str, status: int
) -> None:
    paths = save("a.json", record()), save("b.json", record(peak=peak))
    found, out, _ = say(*paths, "--fail-over", limit)
    assert found == status
    assert ("FAILS: lora" in out) == bool(status)
    assert say(*paths)[0] == 0
    assert say(*paths, "--fail-over", limit, "--metric", "after_step_allocated")[0] == 0


def test_a_cell_that_is_gone_or_failed_fails_and_a_new_one_does_not(save: Save, say: Any) -> None:
    both = save("a", record(), record("other"))
    failed = record("other", status="failed", memory={"peak_allocated": None}, error="no luck")
    assert say(both, save("fewer", record()), "--fail-over", "1%")[0] == 1
    assert say(save("fewer", record()), both, "--fail-over", "1%")[0] == 0
    status, out, _ = say(both, save("worse", record(), failed), "--fail-over", "1%")
    assert status == 1
    assert "was ok and is failed" in out
    assert "no luck" in out
    assert say(save("worse", record(), failed), both, "--fail-over", "1%")[0] == 0


# --- what may stand in a record -----------------------------------------------------------------


def test_hostile_names_are_text(save: Save, say: Any) -> None:
    def hostile(peak: int) -> Record:
        made = record(HOSTILE, peak=peak, error=HOSTILE, environment={HOSTILE: str(peak)})
        holder = made.memory.holders[0]
        holder.op = holder.module = holder.source = holder.dtype = HOSTILE
        holder.category = HOSTILE
        made.memory.at_peak = {HOSTILE: peak}
        made.memory.modules = {HOSTILE: {"activations": peak}}
        return made

    plain = record("lora"), record("lora", peak=200)
    before = save("a", hostile(100), plain[0])
    after = save("b", hostile(200), plain[1])
    out = say(before, after)[1]
    assert "\x1b" not in out
    assert not re.search(r"^\s*# e", out, re.MULTILINE)
    out = say(before, after, "--format", "markdown")[1]
    assert "\x1b" not in out
    assert not re.search(r"(?<!\\)[<>]", out)
    assert not re.search(r"^\s*# ", out, re.MULTILINE)
    assert not re.search(r"(?<!\\)[\[`]", out)
    assert "@" not in out
    assert "http://" not in out
    rows = [line for line in out.splitlines() if line.startswith("|")]
    columns = [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows]
    assert set(columns) == {4, 5}


def test_a_page_shows_what_changed_and_why(save: Save, say: Any, tmp_path: Path) -> None:
    first = save("a", record("lora", 100), record("ia3", 50))
    second = save("b", record("lora", 130), record("ia3", 50), record("full", 9))
    folder = tmp_path / "page"
    status, out, _ = say(first, second, "--format", "html", "--output", str(folder))
    assert status == 0
    assert out.strip() == str(folder / "index.html")
    page = (folder / "index.html").read_text()
    rest = without_scripts(page)
    assert 'data-bytes="100"' in rest
    assert 'data-bytes="130"' in rest
    assert "+30 %" in rest
    assert "only in B" in rest
    assert "aten.mul" in rest
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    rows = [row for rows in json.loads(data)["datasets"].values() for row in rows]
    assert [(row["category"], row["bytes"]) for row in rows] == [("activations", 30)]


def test_a_page_of_equal_records_says_so(save: Save, say: Any, tmp_path: Path) -> None:
    first, second = save("a", record()), save("b", record())
    say(first, second, "--format", "html", "--output", str(tmp_path / "page"))
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Equal in all of 1 cells: the peak allocated." in page
    assert "categories-chart" not in page


def test_hostile_names_are_no_markup_on_a_page(save: Save, say: Any, tmp_path: Path) -> None:
    wild = "</script><script>window.hacked=1</script><img src=x>"
    changes: dict[str, Any] = {"environment": {wild: wild}, "error": wild}
    pair = [record("lora", peak, **changes) for peak in (100, 130)]
    for one in pair:
        one.spec |= {"model": wild, "device": wild}
        one.memory.holders[0].module = one.memory.holders[0].op = wild
    first, second = save("a", pair[0]), save("b", pair[1])
    say(first, second, "--format", "html", "--output", str(tmp_path / "page"))
    rest = without_scripts((tmp_path / "page" / "index.html").read_text())
    assert "<script" not in rest
    assert "<img" not in rest


def test_a_backslash_takes_no_escape_away() -> None:
    assert escaped("a\\|b") == "a\\\\\\|b"


def test_records_of_an_earlier_version_are_told_by_module(save: Save, say: Any) -> None:
    def old(peak: int) -> Record:
        return record(peak=peak, memory={"holders": []})

    for after in (old(300), record(peak=300)):
        paths = save("a.json", old(100)), save("b.json", after)
        status, out, _ = say(*paths)
        assert status == 0
        assert "+200 bytes: layers.*.norm" in out
        (group,) = pairs(say(*paths, "--format", "json")[1])[0]["groups"]["activations"]
        assert (group["modules"], group["change"]) == (["layers.*.norm"], 200)


# --- wrong use ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name two records"),
        (["{record}"], "second"),
        (["{record}", "{missing}"], "does not exist"),
        (["{record}", "{broken}"], "is not a record"),
        (["{record}", "{empty}"], "no records in"),
        (["{record}", "{other}", "{record}"], "not 3"),
        (["{record}", "{record}", "--fail-over", "lots"], "0.5%"),
        (["{record}", "{record}", "--fail-over", "1%", "--metric", "peak"], "unknown metric"),
        (["{record}", "{record}", "--metric", "flops"], "--fail-over"),
        (["{record}", "{record}", "--fail-over", "1MiB", "--metric", "flops"], "FLOPs"),
        (["{record}", "{record}", "--top", "0"], "--top"),
        (["{record}", "{record}", "--format", "pdf"], "pdf"),
        (["{record}", "{record}", "--output", "folder"], "--format html"),
        (["{record}", "{record}", "--between", "a", "b"], "one DIR"),
        (["{folder}", "{others}"], "has a counterpart"),
    ],
)
def test_wrong_use_is_one_line(
    save: Save, say: Any, tmp_path: Path, arguments: Sequence[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    paths = {
        "record": save("a.json", record()),
        "other": save("b.json", record("other")),
        "missing": str(tmp_path / "missing"),
        "broken": str(tmp_path / "broken.json"),
        "empty": str(tmp_path / "empty"),
        "folder": save("folder", record(), record("one")),
        "others": save("others", record("two"), record("three")),
    }
    status, out, err = say(*(argument.format(**paths) for argument in arguments))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_record_that_cannot_be_read_is_named(save: Save, say: Any, tmp_path: Path) -> None:
    folder = save("a", record())
    (tmp_path / "a" / "records" / "broken.json").write_text("{")
    status, out, err = say(folder, save("b", record(peak=120)))
    assert status == 1
    assert "+20 bytes" in out
    assert (err.count("\n"), "broken.json" in err) == (1, True)


def test_an_interrupt_ends_with_130(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: Sequence[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(diff, "_diff", interrupted)
    assert main([]) == 130


def test_it_needs_no_torch(save: Save) -> None:
    paths = save("a.json", record()), save("b.json", record(peak=120))
    code = (
        "import sys; from profiler.diff import main; "
        f"[main([*{paths!r}, '--format', name]) for name in ('text', 'markdown', 'json')]; "
        "sys.exit(bool({'torch', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# --- simulated pairs ----------------------------------------------------------------------------

PLANTED = """
import torch
from profiler.subject.methods.lora import Lora


class Doubled(torch.nn.Module):
    '''The activation function, and a copy of what it gives that the backward keeps.'''

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden):
        hidden = self.inner(hidden)
        return torch.sin(hidden.to(torch.float64)).to(hidden.dtype)  # planted


class Planted(Lora):
    def apply(self, model, config, **how):
        for module in model.modules():
            if hasattr(module, "act_fn"):
                module.act_fn = Doubled(module.act_fn)
        return super().apply(model, config, **how)
"""


def simulated(path: Path, **fields: Any) -> str:
    import profiler

    made = profiler.run(profiler.RunSpec(model=write(path)["llama"], seq_len=32, **fields))
    assert made.status == "ok", made.error
    file = path / f"{len(list(path.glob('*.json')))}.json"
    file.write_text(made.to_json())
    return str(file)


def test_kbit_preparation_is_told_by_the_norms_that_no_longer_cast(
    tmp_path: Path, say: Any
) -> None:
    """With their weights in float32 the norms' input is float32 already; without, each casts it."""
    from transformers.models.llama import modeling_llama

    paths = [simulated(tmp_path, method="qlora", kbit_prepare=how) for how in ("none", "peft")]
    out = say(*paths, "--top", "20")[1]
    assert "kbit_prepare: none → peft" in out
    match = re.search(
        r"× aten\._to_copy float32 \[1, 32, 64\] in layers\.\*\.input_layernorm, "
        r"layers\.\*\.post_attention_layernorm and norm "
        r"\(transformers/models/llama/modeling_llama\.py:(\d+)\), none in B",
        out,
    )
    assert match is not None, out
    lines = inspect.getsource(modeling_llama).splitlines()
    assert "to(torch.float32)" in lines[int(match[1]) - 1]
    (pair,) = pairs(say(*paths, "--format", "json")[1])
    total = pair["figures"]["peak_allocated"]["change"]
    assert sum(one["change"] for one in pair["at_peak"].values()) == total


def test_a_planted_activation_is_named_by_its_file_and_line(tmp_path: Path, say: Any) -> None:
    file = tmp_path / "planted.py"
    file.write_text(PLANTED)
    number = next(n for n, text in enumerate(PLANTED.splitlines(), 1) if text.endswith("# planted"))
    paths = [simulated(tmp_path, method=method) for method in ("lora:r=4", f"{file}:Planted:r=4")]
    out = say(*paths)[1]
    assert "aten._to_copy float64 [1, 32, 128] in layers.*.mlp.act_fn" in out.split("\n\n")[1]
    assert f"(planted.py:{number}), none in A" in out
