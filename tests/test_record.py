from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import StoreError
from profiler.record import SCHEMA, Record

#: The contract: every key that is always there.
KEYS = {
    "": "schema id status error spec params memory flops time energy fits approximations "
    "environment",
    "memory": "peak_allocated load_peak after_step_allocated peak_reserved device_total process "
    "phases at_peak outside_allocator largest_at_peak modules timeline",
}
FULL: dict[str, Any] = {
    "schema": SCHEMA,
    "id": "a-0123",
    "status": "ok",
    "source": "simulated",
    "spec": {"method": {"label": "lora"}},
    "params": {"total": 10, "trainable": 1, "trainable_fraction": 0.1, "adapter_file_bytes": 4},
    "memory": {
        "peak_allocated": 3,
        "largest_at_peak": [
            {"bytes": 3, "category": "activations", "op": "mm", "module": "", "shape": [1],
             "dtype": "float32", "phase": "forward"}
        ],
        "timeline": {"event": [0], "phase": ["forward"], "allocated": {"activations": [3]}},
    },
    "flops": {"total": 5, "phases": {"forward": 5}},
    "time": {"source": "predicted", "step": 0.5, "phases": {}, "tokens_per_second": 2.0},
    "fits": {"capacity": 5, "headroom": 2},
}  # fmt: skip
LEAST = {key: FULL[key] for key in ("schema", "id", "status", "source", "spec")}

statuses = st.sampled_from(["ok", "oom", "failed", "crashed", "timeout", "refused", "unsupported"])


@given(
    status=statuses,
    source=st.sampled_from(["measured", "simulated"]),
    error=st.none() | st.text(),
    peak=st.none() | st.integers(0, 2**60),
    more=st.dictionaries(st.text(min_size=1).map("x_{}".format), st.integers() | st.text()),
)
def test_a_record_survives_json_with_keys_of_a_later_version(
    status: str, source: str, error: str | None, peak: int | None, more: dict[str, Any]
) -> None:
    data = {**FULL, "status": status, "source": source, "error": error, **more}
    data["memory"] = {**FULL["memory"], "peak_allocated": peak, **more}
    record = Record.from_dict(data)
    again = Record.from_json(record.to_json())
    assert again == record
    written = json.loads(record.to_json())
    assert more.items() <= written.items()
    assert more.items() <= written["memory"].items()


@pytest.mark.parametrize("data", [FULL, LEAST], ids=["full", "least"])
def test_every_key_of_the_contract_is_written(data: dict[str, Any]) -> None:
    written = Record.from_dict(data).to_dict()
    for path, keys in KEYS.items():
        assert set(keys.split()) <= set(written[path] if path else written)


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, "1", None])
def test_another_schema_is_refused_by_its_number(schema: object) -> None:
    with pytest.raises(StoreError, match=re.escape(repr(schema))):
        Record.from_dict({**FULL, "schema": schema})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", "{}", "[" * 100_000, "\x00", '{"schema": 1}']
)
def test_what_is_no_record_is_one_line(text: str) -> None:
    with pytest.raises(StoreError, match="not a record") as caught:
        Record.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("status", "fine"), ("source", "guessed"), ("memory", 3), ("params", {"total": "many"}),
     ("time", {"source": "predicted"}), ("id", None)],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(StoreError, match=key):
        Record.from_dict({**FULL, key: value})


@pytest.mark.parametrize("source", ["measured", "simulated"])
@given(status=statuses)
def test_a_result_is_ok_unsupported_or_a_predicted_lack_of_memory(source: str, status: str) -> None:
    record = Record.from_dict({**LEAST, "status": status, "source": source})
    answers = {"ok", "unsupported"} | ({"oom"} if source == "simulated" else set())
    assert record.answered == (status in answers)
