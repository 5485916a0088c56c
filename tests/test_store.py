from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path

import fake_cells
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import files
from profiler.errors import StoreError
from profiler.record import Record
from profiler.store import Store


def _put(
    store: Store, method: str = "ok", fingerprint: str = "f" * 12, **changes: object
) -> Record:
    made = fake_cells.record(
        fake_cells.spec(method), environment={"fingerprint": fingerprint}, **changes
    )
    store.put(made)
    return made


def _files(store: Store) -> list[str]:
    return sorted(path.name for path in store.records.iterdir())


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30)
@given(error=st.text(), extra=json_values)
def test_what_is_put_is_what_is_got(
    tmp_path_factory: pytest.TempPathFactory, error: str, extra: object
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    made = _put(store, error=error, spec={"method": {"label": "ok"}, "model_config": extra})
    assert store.get(made.id, "f" * 12) == made
    assert store.all() == [made]


def test_a_path_that_is_no_text_can_be_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = _put(store, error=os.fsdecode(b"\xff/config.json"))
    assert store.get(made.id, "f" * 12) == made


def _pack(store: Store) -> None:
    for path in store.records.glob("*.json"):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()


def test_packed_records_are_read_and_a_new_one_takes_their_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = [_put(store, "ok"), _put(store, "ok 1")]
    _pack(store)
    assert len(_files(store)) == 2
    assert store.get(made[0].id, "f" * 12) == made[0]
    assert {one.id for one in store.all()} == {one.id for one in made}
    newer = _put(store, "ok", error="again")
    assert store.get(newer.id, "f" * 12) == newer
    assert len(store.all()) == len(_files(store)) == 2


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(b"{" * 99, mtime=0)[:-9]])
def test_a_broken_packed_record_is_told_in_one_line(tmp_path: Path, data: bytes) -> None:
    store = Store(tmp_path)
    good = _put(store, "ok")
    (store.records / "broken.ffffffffffff.json.gz").write_bytes(data)
    problems: list[str] = []
    assert store.all(problems) == [good]
    assert len(problems) == 1
    assert "\n" not in problems[0]


def test_what_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UNPACKED_LIMIT", 1000)
    assert files.unpack(gzip.compress(b"x" * 1000)) == b"x" * 1000
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        files.unpack(gzip.compress(b"x" * 1001))


def test_two_environments_share_no_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = _put(store, fingerprint="0" * 12)
    new = _put(store, fingerprint="1" * 12, status="failed")
    assert store.get(old.id, "0" * 12) == old
    assert store.get(old.id, "1" * 12) == new
    assert store.get(old.id, "2" * 12) is None


def test_a_second_put_replaces_the_first_and_leaves_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _put(store, status="failed")
    made = _put(store)
    assert store.all() == [made]
    assert len(_files(store)) == 1


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../../x", "a/b", "/etc/x", ".hidden", "a\0b", "a\nb", "x" * 300, "a\\b"]
)
def test_no_id_leads_out_of_the_folder(tmp_path: Path, id: str) -> None:
    store = Store(tmp_path / "inside")
    made = fake_cells.record(fake_cells.spec(), id=id, environment={"fingerprint": "f"})
    with pytest.raises(StoreError, match="id"):
        store.put(made)
    with pytest.raises(StoreError, match="id"):
        store.get(id, "f")
    assert not list(tmp_path.rglob("*.json"))


def test_a_record_without_a_fingerprint_is_refused(tmp_path: Path) -> None:
    made = fake_cells.record(fake_cells.spec(), environment={})
    with pytest.raises(StoreError, match="fingerprint"):
        Store(tmp_path).put(made)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    store = Store(tmp_path)
    old = _put(store)

    def full(handle: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        expected = StoreError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            _put(store, status="failed")
    assert "\n" not in str(caught.value)
    assert store.all() == [old]
    assert len(_files(store)) == 1


BAD = {
    "cut.json": '{"schema": 1, "id": "a',
    "empty.json": "",
    "list.json": "[]",
    "later.json": json.dumps({"schema": 99, "id": "a"}),
    "lacking.json": json.dumps({"schema": 1, "id": "a"}),
    "binary.json": "\x00\x01",
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_record_is_named_and_the_others_are_not_lost(
    tmp_path: Path, name: str
) -> None:
    store = Store(tmp_path)
    good = [_put(store, "a"), _put(store, "z")]
    (store.records / name).write_text(BAD[name])
    with pytest.raises(StoreError, match=name) as caught:
        store.all()
    assert "\n" not in str(caught.value)
    problems: list[str] = []
    assert sorted(one.id for one in store.all(problems)) == sorted(one.id for one in good)
    assert len(problems) == 1
    assert name in problems[0]


def test_a_file_with_another_cells_record_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = _put(store)
    store.path(made.id, "f" * 12).rename(store.path("other", "f" * 12))
    with pytest.raises(StoreError, match="another cell"):
        store.get("other", "f" * 12)


def test_a_half_written_file_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = _put(store)
    (store.records / ".0123456789abcdef.tmp").write_text("{")
    assert store.all() == [made]


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no records in"):
        Store(tmp_path / "nowhere").all()
    assert Store(tmp_path / "nowhere").get("a", "b") is None


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file")
    for action in (store.prepare, store.all, lambda: _put(store), lambda: store.get("a", "b")):
        with pytest.raises(StoreError, match=r"cannot|no records") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_prepare_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "b")
    store.prepare()
    store.prepare()
    assert store.all() == []
    assert _files(store) == []
