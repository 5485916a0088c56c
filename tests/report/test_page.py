"""The page: complete, self-contained, the same for the same records, deaf to hostile names."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_scripts import without_scripts

from profiler.errors import StoreError, UsageError
from profiler.record import Record
from profiler.report import build, downloads, page, render
from profiler.report.cells import Cell, arrange

RecordFactory = Callable[..., Record]

HOSTILE = (
    "</svg></title></style></code></table><script>window.hacked=1</script>"
    '<img src=x onerror=window.hacked=1>" onload="window.hacked=1" \''
    " {{ 7 * 7 }} {% raw %} $\\frac{ &amp; ]]> --> \x00\x1b\u202e\ud800\n"
)
#: Strings that are one of a few by the record's contract.
CLOSED = {"status", "source"}


@pytest.fixture(scope="module")
def source(study: list[Record]) -> str:
    return render(study, title="A study", command="python -m profiler.sweep opt_6_7b")


@pytest.fixture(scope="module")
def cells(study: list[Record]) -> list[Cell]:
    return arrange(study)


def spoiled(data: Any, words: str, key: str = "") -> Any:
    """The data with `words` before every string and as a further key of every open map."""
    if isinstance(data, dict):
        result = {name: spoiled(value, words, name) for name, value in data.items()}
        if key in ("environment", "at_peak", "phases", "outside_allocator"):
            result[words] = words if key == "environment" else 512
        if key == "spec":
            result["seed"] = words
        return result
    if isinstance(data, list):
        return [spoiled(item, words, key) for item in data]
    return words + data if isinstance(data, str) and key not in CLOSED else data


def with_words(records: list[Record], words: str) -> str:
    changed = [Record.from_dict(spoiled(record.to_dict(), words)) for record in records]
    return render(changed, title=words, command=words)


def test_the_main_table_holds_what_the_records_hold(
    source: str, cells: list[Cell], html: Any
) -> None:
    table = html(source).table("opt-6.7b: parameters, memory")
    rows = [row for row in table.rows if len(row) > 1]
    expected = [cell for cell in cells if cell.model == "opt-6.7b"]
    assert len(rows) == len(expected) == 24
    for row, cell in zip(rows, expected, strict=True):
        record, memory = cell.record, cell.memory
        assert record.params
        assert record.flops
        assert record.time
        assert record.fits
        assert row[0].tag == "th"
        assert row[0].attributes["scope"] == "row"
        assert row[0].text == cell.short
        assert row[0].attributes.get("title", row[0].text) == cell.name
        assert row[1].text == record.status
        exact = {
            2: ("data-count", record.params.trainable),
            4: ("data-count", record.params.total),
            5: ("data-bytes", memory.peak_allocated),
            6: ("data-bytes", memory.peak_reserved),
            7: ("data-bytes", memory.device_total),
            8: ("data-flops", record.flops.total),
            9: ("data-seconds", record.time.step),
            10: ("data-bytes", record.fits.headroom),
        }
        for index, (name, value) in exact.items():
            assert float(row[index].attributes[name] or "") == value
        share = 100 * record.params.trainable / record.params.total
        assert float(row[3].text) == pytest.approx(share, rel=5.1e-4)
        assert float(row[5].text) == pytest.approx((memory.peak_allocated or 0) / 2**30, abs=0.0051)
        assert row[10].text.startswith("yes" if record.fits.headroom >= 0 else "no")


def test_the_breakdown_adds_up_in_the_page(source: str, cells: list[Cell], html: Any) -> None:
    table = html(source).table("opt-6.7b: memory at the peak by category")
    rows = [row for row in table.rows if len(row) > 1]
    assert len(rows) == 24
    for row in rows:
        *parts, total, _ = [int(cell.attributes["data-bytes"] or "") for cell in row[1:]]
        assert sum(parts) == total
    drawn = [cell.memory for cell in cells if cell.drawable]
    assert [
        (int(row[-2].attributes["data-bytes"] or ""), int(row[-1].attributes["data-bytes"] or ""))
        for row in rows
    ] == [(memory.peak_allocated, memory.outside_allocator["cuda_context"]) for memory in drawn]


def test_phases_and_holders_are_in_the_page(source: str, cells: list[Cell], html: Any) -> None:
    found = html(source)
    rows = [row for row in found.table("peak allocated in each phase").rows if len(row) > 1]
    for row, cell in zip(rows, [cell for cell in cells if cell.drawable], strict=True):
        shown = [int(field.attributes["data-bytes"] or "") for field in row[1:]]
        memory = cell.memory
        assert shown == [*memory.phases.values(), memory.load_peak, memory.after_step_allocated]
    for cell in cells:
        if not cell.memory.largest_at_peak:
            continue
        table = found.table(
            f"Largest blocks at the peak: {cell.name}, {cell.model} on {cell.device}"
        )
        assert sum(int(row[1].text) for row in table.rows) == len(cell.memory.largest_at_peak)
        total = sum(int(row[3].attributes["data-bytes"] or "") for row in table.rows)
        assert total == sum(holder.bytes for holder in cell.memory.largest_at_peak)


def test_holders_name_their_lines_where_a_record_has_them(record: RecordFactory, html: Any) -> None:
    plain, lined = record(), record("full")
    lined.memory.largest_at_peak[0].source = "m.py:1"
    caption = "Largest blocks at the peak: "
    found = html(render([plain, lined], title="t"))
    rows = found.table(f"{caption}full, opt-6.7b on rtx-4090").rows
    assert {row[-1].text for row in rows} == {"m.py:1", "–"}
    (row, *_) = found.table(f"{caption}lora:r=64, opt-6.7b on rtx-4090").rows
    assert row[-1].text == "setup"


def test_long_names_are_given_in_full_once(record: RecordFactory, html: Any) -> None:
    label = "lora:r=64,lora_alpha=16,lora_dropout=0.05,target_modules=q_proj+v_proj"
    long = record()
    long.spec["method"]["label"] = label
    source = render([long], title="t")
    assert html(source).table("parameters, memory").rows[1][0].text == "lora"
    assert f"<code>{label}</code>" in source.replace("<wbr>", "")


def test_cells_without_a_result_are_listed_with_their_reason(source: str, html: Any) -> None:
    rows = html(source).table("Cells without a fitting result").rows
    shown = {(row[0].text, row[1].text, row[2].text): row[5].text for row in rows}
    assert shown["bitfit", "llama-3.2-3b", "l40s"] == "llama-3.2-3b has no bias to train"
    assert shown["lora:r=64", "llama-3.2-3b", "l40s"] == "boom"
    assert "24.0 GiB" in shown["full", "opt-6.7b", "rtx-4090"]
    assert len(shown) == 4  # full on two cards, and the two above


def test_every_table_can_be_read_by_a_screen_reader_and_scrolled(source: str, html: Any) -> None:
    found = html(source)
    assert len(found.tables) == source.count('<div class="scroll"') - 1  # the command scrolls too
    for table in found.tables:
        assert table.caption.strip()
        assert all(cell.attributes.get("scope") == "col" for cell in table.header)
        width = len(table.header)
        for row in table.rows:
            assert sum(int(cell.attributes.get("colspan") or 1) for cell in row) == width
    for attributes in found.all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["role"] == "region"
            assert attributes["aria-label"]
    for attributes in found.all("svg"):
        assert attributes["role"] == "img"
        assert attributes["aria-label"]


def test_simulated_and_measured_are_badged_and_apart(record: RecordFactory, html: Any) -> None:
    both = render([record("ia3"), record("ia3", source="measured", fits=None)], title="Both")
    found = html(both)
    captions = [table.caption for table in found.tables if "opt-6.7b" in table.caption]
    assert captions
    kinds = ("simulated", "measured", "predicted")
    assert all(sum(kind in text for kind in kinds) == 1 for text in captions)
    figures = re.findall(r"<figcaption>(.*?)</figcaption>", both, re.DOTALL)
    shown = [tuple(kind for kind in kinds if kind in text) for text in figures]
    assert set(shown) >= {(kind,) for kind in kinds}
    # Only where runs are chosen from a list, which names each one's source, do both stand.
    both_said = [text for text, kinds in zip(figures, shown, strict=True) if len(kinds) > 1]
    assert all(
        text.startswith(("Memory of one", "What is given", "What each")) for text in both_said
    )


def test_nothing_is_loaded_from_anywhere(source: str, html: Any) -> None:
    source = without_scripts(source)
    for tag, attributes in html(source).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "srcset", "action", "data", "poster", "xlink:href"):
                assert (value or "").startswith(("#", "data:")), (tag, value)
            if name != "xmlns":
                assert "http:" not in (value or "")
                assert "https:" not in (value or "")
    assert "@import" not in source
    assert set(re.findall(r"url\((.)", source)) <= {"#"}


def test_names_cannot_become_markup(study: list[Record], html: Any) -> None:
    """Whatever the names are, the page has the same elements with the same attributes."""
    records = [*study[:2], study[-1]]
    # As long, because long names are shortened.
    calm = html(with_words(records, "x" * len(HOSTILE)))
    wild = html(with_words(records, HOSTILE))

    def shape(found: Any) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(sorted(names))) for tag, names in found.tags if tag != "wbr"]

    assert shape(calm) == shape(wild)
    assert any("hacked" in (names.get("aria-label") or "") for _, names in wild.tags)


def test_a_page_of_hostile_names_is_plain_text(
    study: list[Record], charted: Callable[[Record], Record]
) -> None:
    source = with_words([charted(one) for one in study[:2]], HOSTILE)
    assert "<script" not in without_scripts(source)
    assert "<img" not in without_scripts(source)
    source.encode("utf-8")
    # Templates are never run over data.
    assert "{{ 7 * 7 }}" in source


def test_the_same_records_give_the_same_page_in_any_order(
    study: list[Record], tmp_path: Path
) -> None:
    shuffled = list(study)
    random.Random(2).shuffle(shuffled)
    first = build(study, tmp_path / "a", title="A study").read_bytes()
    assert build(shuffled, tmp_path / "b", title="A study").read_bytes() == first


def test_the_page_carries_its_records(source: str, study: list[Record], html: Any) -> None:
    (link, *_) = [item for item in html(source).all("a") if "download" in item]
    kind, _, data = (link["href"] or "").partition(",")
    assert kind == "data:application/gzip;base64"
    kept = json.loads(gzip.decompress(base64.b64decode(data)))
    assert len(kept) == len(study)
    for record in study:
        assert record.to_dict() in kept


def test_many_records_are_linked_and_not_embedded(
    study: list[Record], html: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "EMBED_LIMIT", 100)
    links = [item["href"] for item in html(render(study[:1], title="t")).all("a")]
    assert "records/" in links
    assert not any((link or "").startswith("data:") for link in links)


def test_provenance_says_what_ran_where(source: str, study: list[Record], html: Any) -> None:
    rows = {row[0].text: row[1].text for row in html(source).table("Environment").rows}
    for name, value in study[0].environment.items():
        assert rows[name.replace("_", " ")].strip() == value
    assert rows["seed"] == "0"
    assert "python -m profiler.sweep opt_6_7b" in source


def test_what_was_not_modelled_is_said_once_with_its_count(record: RecordFactory) -> None:
    records = [
        record("ia3", approximations=["no cuDNN", "no NCCL"]),
        record("full", approximations=["no cuDNN"]),
    ]
    assert page.approximations(arrange(records)) == [("no cuDNN", 2), ("no NCCL", 1)]


def test_a_cpu_has_no_card_and_reserves_nothing(record: RecordFactory, html: Any) -> None:
    measured = record(source="measured", fits=None)
    measured.spec["device"] = "cpu"
    measured.memory.peak_reserved = measured.memory.device_total = None
    source = render([measured], title="On a CPU")
    found = html(source)
    assert not [table for table in found.tables if "fits on which card" in table.caption]
    row = next(row for row in found.table("parameters, memory").rows if len(row) > 1)
    assert [row[6].text, row[7].text, row[10].text] == ["–", "–", "–"]
    assert "allocated at the peak" in source


def test_only_failures_make_a_page_too(record: RecordFactory, html: Any) -> None:
    failed = record(
        status="failed",
        error="boom",
        params=None,
        memory={},
        flops=None,
        time=None,
        fits=None,
        spec={"model": "nope", "method": "lora"},
        approximations=[],
        environment={},
    )
    source = render([failed], title="Nothing")
    assert "None of the 1" in source
    assert html(source).all("svg") == []
    assert "boom" in source


def test_no_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one record"):
        build([], tmp_path, title="Nothing")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_one_line(study: list[Record], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        build(study[:1], tmp_path / "file", title="t")


def test_a_failed_write_leaves_the_earlier_page(
    study: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(study[:1], tmp_path, title="First")
    before = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        build(study[:1], tmp_path, title="Second")
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["index.html"]


def test_a_page_needs_no_torch(study: list[Record], tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(study[0].to_json())
    code = (
        "import sys, pathlib\n"
        "from profiler.record import Record\n"
        "from profiler.report import build\n"
        "light = {'pandas', 'matplotlib', 'seaborn', 'jinja2'} & set(sys.modules)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "record = Record.from_json((folder / 'record.json').read_bytes())\n"
        "build([record], folder, title='t')\n"
        "print(sorted(light), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] False"
    assert done.stderr == ""
