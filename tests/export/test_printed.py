"""Tables for papers and for READMEs: every cell is there, and no name is markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from profiler.export import escaping, formats, latex, markdown, printed
from profiler.record import Record
from profiler.report.text import clean

HOSTILE = (
    r"""a|b & <script>alert(1)</script> \input{/etc/passwd} %comment $x$ _y_ *z* `c` ~~d~~ [e](f)"""
)

#: What `escaping.latex` writes, each with what it stands for.
_WRITTEN = {written: plain for plain, written in escaping._LATEX.items()}
_TOKEN = re.compile("|".join(re.escape(one) for one in sorted(_WRITTEN, key=len, reverse=True)))


LOST = "\N{REPLACEMENT CHARACTER}"


def unescaped(text: str) -> str:
    """What LaTeX shows: fails where a special character is not escaped."""
    plain = []
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token:
            plain.append(_WRITTEN[token.group()])
            place = token.end()
        elif text.startswith("{}", place):  # keeps two letters apart
            place += 2
        else:
            assert text[place] not in r"\{}#$%&_~^[]*", text
            plain.append(text[place])
            place += 1
    return "".join(plain)


def on_one_line(text: str) -> str:
    return " ".join(clean(text).split())


def html_cells(text: str) -> list[list[str]]:
    """The rows of Markdown's tables, as they are shown."""
    rows: list[list[str]] = []
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            children = tokens[place + 1].children or []
            kinds = {child.type for child in children}
            assert kinds <= {"text", "text_special", "strong_open", "strong_close"}, kinds
            rows[-1].append("".join(child.content for child in children))
    return rows


def named(record: Record, label: str) -> Record:
    method = {**record.spec["method"], "label": label}
    return record.model_copy(update={"spec": {**record.spec, "method": method}})


@given(text=st.text())
def test_latex_shows_what_was_meant(text: str) -> None:
    shown = unescaped(escaping.latex(text))
    assert shown.replace("?", LOST) == on_one_line(text).replace("?", LOST)


@given(text=st.text("-,–a", max_size=8))
def test_latex_joins_no_two_letters(text: str) -> None:
    assert not re.search("--|,,", escaping.latex(text))


@given(text=st.text(min_size=1))
def test_markdown_shows_what_was_meant(text: str) -> None:
    table = f"| a | b |\n| --- | --- |\n| {escaping.markdown(text)} | end |\n"
    _, (shown, end) = html_cells(table)
    assert shown == on_one_line(text)
    assert end == "end"


@pytest.mark.parametrize("table", formats.PRINTED)
def test_every_table_is_in_both(records: list[Record], table: str) -> None:
    made = printed.make(records, table)
    assert made
    tex, text = latex.render(records, table), markdown.render(records, table)
    assert tex.count(r"\begin{table}") == tex.count(r"\bottomrule") == len(made)
    assert tex.count(r"\toprule") == len(made)
    labels = re.findall(r"\\label\{([^}]*)\}", tex)
    assert len(set(labels)) == len(made)
    rows = iter(html_cells(text))
    for one in made:
        width = len(one.columns)
        header = next(rows)
        assert header == [
            f"{column.label} ({column.unit})" if column.unit else column.label
            for column in one.columns
        ]
        for group in one.groups:
            if len(one.groups) > 1 and group.heading:
                assert next(rows)[0] == group.heading
            for row in group.rows:
                shown = next(rows)
                assert shown == [on_one_line(field.text) for field in row]
                assert len(shown) == width
    assert next(rows, None) is None


def test_a_caption_says_where_its_figures_are_from(records: list[Record]) -> None:
    other = records[0].model_copy(update={"source": "measured"})
    for text in (latex.render([*records, other]), markdown.render([*records, other])):
        assert "(simulated)" in text
        assert "(measured)" in text
    made = printed.make([*records, other], "cells", ["id", "memory.peak_allocated"])
    assert sorted(table.source for table in made) == ["measured", "simulated"]


def test_headers_have_units(records: list[Record]) -> None:
    chosen = ["memory.peak_allocated", "flops.total", "time.step", "params.total"]
    (table,) = printed.make(records[:1], "cells", chosen)
    memory, flops, time, params = table.columns
    assert memory.unit == "GiB"
    assert flops.unit.endswith("FLOP")
    assert re.fullmatch("m?s, predicted", time.unit)
    assert params.unit == ""
    (row,) = table.groups[0].rows
    record = records[0]
    assert row[0].exact == record.memory.peak_allocated
    assert record.params is not None
    assert row[3].text == f"{record.params.total:,}"


def test_a_hostile_name_is_only_a_name(records: list[Record]) -> None:
    record = named(records[0], HOSTILE)
    tex = latex.render([record], "cells", ["spec.method.label"])
    rows = [line for line in tex.splitlines() if line.endswith(r" \\")]
    assert unescaped(rows[-1].removesuffix(r" \\").strip()) == HOSTILE
    text = markdown.render([record], "cells", ["spec.method.label"])
    assert html_cells(text)[1] == [HOSTILE]
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in html


def test_a_cell_is_no_argument_of_the_row_before(records: list[Record]) -> None:
    r"""`\\[` and `\\*` are commands of their own."""
    shown = latex.render([named(records[0], "[2cm]"), named(records[0], "*x")], "cells",
                         ["spec.method.label"])  # fmt: skip
    assert not re.search(r"(\\\\|rule)\s*[\[*]", shown)


def test_help_and_tables_name_the_same() -> None:
    from profiler.export import flat

    assert tuple(flat.TABLES) == formats.FLAT
    assert set(printed.NAMES) == set(formats.PRINTED)
    for format in formats.FORMATS.values():
        assert isinstance(format.help, str)


def test_nothing_to_show_is_an_error(records: list[Record]) -> None:
    from profiler.errors import UsageError

    nothing: dict[str, Any] = {"fits": None}
    record = records[0].model_copy(update=nothing)
    with pytest.raises(UsageError, match="no record has fits"):
        printed.make([record], "fits")
