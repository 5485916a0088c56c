"""The page: complete, the same for the same numbers, deaf to hostile names."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_scripts import without_scripts
from validations import validation_of

from profiler.errors import StoreError
from profiler.validation import page
from profiler.validation.result import Validation

HOSTILE = (
    "</svg></title></style></code></table><script>window.hacked=1</script>"
    '<img src=x onerror=window.hacked=1>" onload="window.hacked=1" \'{{ 7 * 7 }} \x00\x1b\u202e'
)


@pytest.fixture(scope="module")
def html(off: Validation) -> str:
    return page.render(off)


def test_it_says_what_is_simulated_and_what_is_measured(html: str) -> None:
    text = re.sub(r"<[^>]+>", " ", html)
    for words in ("simulated", "measured", "published", "first estimate", "unexplained"):
        assert words in text
    heads = re.findall(r'<th scope="col" class="number">(predicted|published) ?([^/]*)', html)
    assert {name for name, _ in heads} == {"predicted", "published"}
    for name, rest in heads:
        source = "simulated" if name == "predicted" else "measured"
        assert f'class="badge {source}"' in rest


def test_every_number_is_in_it(html: str, off: Validation) -> None:
    for figure in off.figures:
        if figure.kind != "seconds":
            assert f">{round(figure.measured):,}</td>" in html
            assert f">{round(figure.predicted or 0):,}</td>" in html
        assert figure.case in html


def test_every_point_of_the_scatter_is_a_figure(html: str, off: Validation) -> None:
    names = ("case", "metric", "predicted", "measured")
    pattern = " ".join(f'data-{name}="([^"]*)"' for name in names)
    found = re.findall(pattern, html[: html.index('id="errors"')])
    expected = [
        (one.case, one.metric, repr(one.predicted), repr(one.measured))
        for one in off.figures
        if one.kind != "count" and one.metric != "params.adapter_file_bytes"
    ]
    assert sorted(found) == sorted(expected)


def test_every_reason_is_given_and_the_lack_of_one_said(html: str, off: Validation) -> None:
    said = {one.explanation for one in off.figures if one.verdict == "explained"}
    assert said
    for text in said:
        assert text.replace("'", "&#39;") in html
    assert "No reason is known." in html
    assert "published with transformers 4.48.1" in html.lower()
    wrong = [one for one in off.figures if one.verdict == "unexplained"]
    assert f"{len(wrong)} numbers of " in html


def test_nothing_is_off_where_all_is_right() -> None:
    html = page.render(validation_of([1.0]))
    assert 'id="outliers"' not in html
    assert "No reason is known" not in html


def test_it_is_the_same_for_the_same_numbers(html: str, off: Validation) -> None:
    assert page.render(Validation.from_json(off.to_json())) == html


def test_the_numbers_can_be_taken_along(html: str, off: Validation) -> None:
    found = re.search(r"data:application/gzip;base64,([A-Za-z0-9+/=]+)", html)
    assert found is not None
    data = gzip.decompress(base64.b64decode(found[1]))
    assert Validation.from_json(data) == off


def test_it_loads_nothing(html: str) -> None:
    assert not re.search(r"<(script|link rel=\"stylesheet\"|img|iframe)", without_scripts(html))
    assert re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', html) == []


def spoiled(off: Validation) -> Validation:
    data = json.loads(off.to_json())
    for group in data["groups"]:
        group |= {"title": HOSTILE, "source": HOSTILE, "card": HOSTILE, "notes": [HOSTILE]}
        group["versions"] = {HOSTILE: HOSTILE}
    for one in data["figures"]:
        one |= {"case": HOSTILE + one["case"], "explanation": HOSTILE}
    for one in data["cells"]:
        one |= {"case": HOSTILE, "approximations": [HOSTILE], "error": HOSTILE}
    data["command"] = HOSTILE
    data["environments"] = {HOSTILE: {HOSTILE: HOSTILE}}
    return Validation.from_json(json.dumps(data))


def test_hostile_names_are_text(off: Validation) -> None:
    html = page.render(spoiled(off))
    assert "<script" not in without_scripts(html)
    assert "<img" not in without_scripts(html)
    assert not re.search("[\x00\x1b\u202e]", html)
    assert "{{ 7 * 7 }}" in html


def test_a_folder_that_cannot_be_written_is_one_line(off: Validation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write") as raised:
        page.build(off, tmp_path / "file")
    assert "\n" not in str(raised.value)


def test_it_needs_no_torch(off: Validation, tmp_path: Path) -> None:
    (tmp_path / "validation.json").write_text(off.to_json())
    code = (
        "import sys; from profiler import validate; "
        f"code = validate.main(['--render', '--output', {str(tmp_path)!r}]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "index.html").read_text() == page.render(off)
