"""Runs under a budget are equal line for line, whole, resumed or sharded."""

import pytest
from tiny_runs import class_spec, full_run, lines, write_images

from certimed import InputError
from certimed.runs import merge


def test_runs_are_equal_line_for_line_resumed_or_sharded_and_a_changed_budget_is_refused(tmp_path):
    spec = class_spec(write_images(tmp_path / "images", 12), budget="grid@2000")
    whole = full_run(spec, tmp_path / "whole")
    full_run(spec, tmp_path / "resumed")
    path = tmp_path / "resumed" / "certificates.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    full_run(None, tmp_path / "resumed", resume=True)
    for part in ("1", "2"):
        full_run(spec, tmp_path / part, shard=f"{part}/2")
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged").close()
    assert lines(whole) == lines(tmp_path / "resumed") == lines(tmp_path / "merged")
    assert len({record.certificates["plain"].n for record in whole.records()}) >= 3
    with pytest.raises(InputError, match=r'request\.budget was "grid\S*@2000" and is now "grid\S*"'):
        full_run(spec.changed(budget="grid"), tmp_path / "whole", resume=True)
