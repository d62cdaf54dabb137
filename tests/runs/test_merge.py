"""Shards cover every image once, and merged they are the run that was never divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import class_spec, full_run, lines, manifest, mask_spec, write_images, write_scans

from certimed import InputError, load_run
from certimed.runs import RunFolder, Shard, merge, shard


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 10, broken=(4,))


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    return full_run(class_spec(images), tmp_path_factory.mktemp("whole") / "run").folder


def parts_of(spec, tmp_path, *which):
    for name in which:
        full_run(spec, tmp_path / name.replace("/", "-"), shard=name)
    return [tmp_path / name.replace("/", "-") for name in which]


@given(ids=st.lists(st.text(max_size=5), unique=True, max_size=40), count=st.integers(1, 9), data=st.data())
def test_shards_are_a_partition_that_does_not_depend_on_order(ids, count, data):
    parts = [[ids[position] for position in shard(ids, index, count)] for index in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == sorted(ids)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    shuffled = data.draw(st.permutations(ids))
    for index in range(1, count + 1):
        again = [shuffled[position] for position in shard(shuffled, index, count)]
        assert sorted(again) == sorted(parts[index - 1])
        assert parts[index - 1] == [item for item in ids if item in parts[index - 1]]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2", "", "1.5/4"])
def test_impossible_shards_are_refused(text):
    with pytest.raises(InputError):
        Shard.parse(text)


def test_merged_shards_are_the_undivided_run_byte_for_byte(images, whole, tmp_path):
    parts = parts_of(class_spec(images), tmp_path, "1/3", "2/3", "3/3")
    assert [str(RunFolder.open(part).shard) for part in parts] == ["1/3", "2/3", "3/3"]
    with merge(parts, tmp_path / "merged") as merged:
        assert merged.shard is None
    assert lines(tmp_path / "merged") == lines(whole.path)
    assert merged.digest() == whole.digest()
    assert set(merged.timings()) == set(whole.timings())
    finished = RunFolder.resume(tmp_path / "merged", manifest(whole.path))
    assert len(finished.finished()) == 10
    assert len(finished.finished(retry_failed=True)) == 9
    finished.close()


def test_merged_shards_of_masks_bring_their_arrays(tmp_path):
    spec = mask_spec(write_scans(tmp_path / "scans", 3))
    whole = full_run(spec, tmp_path / "whole")
    with merge(parts_of(spec, tmp_path, "1/2", "2/2"), tmp_path / "merged") as merged:
        assert merged.digest() == whole.folder.digest()
    assert lines(tmp_path / "merged") == lines(whole)
    arrays = sorted(path.name for path in (tmp_path / "merged" / "arrays").iterdir())
    assert arrays == sorted(path.name for path in (tmp_path / "whole" / "arrays").iterdir())
    before = {record.item: record.certificates["plain"] for record in whole.records()}
    for record in load_run(tmp_path / "merged").records():
        found = record.certificates["plain"]
        assert (found.agreement == before[record.item].agreement).all()
        assert (found.mask == before[record.item].mask).all()


def test_a_partial_merge_can_be_finished(images, whole, tmp_path):
    merge(parts_of(class_spec(images), tmp_path, "1/3", "3/3"), tmp_path / "merged").close()
    full_run(None, tmp_path / "merged", resume=True)
    assert lines(tmp_path / "merged") == lines(whole.path)


def test_overlaps_are_refused(images, tmp_path):
    parts = parts_of(class_spec(images), tmp_path, "1/2", "1/3")
    with pytest.raises(InputError, match=r"both hold image 'dark/00000\.png'"):
        merge(parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_by_name(images, tmp_path):
    parts = parts_of(class_spec(images), tmp_path, "1/2") + parts_of(class_spec(images, sigma=0.5), tmp_path, "2/2")
    with pytest.raises(InputError, match=r"request\.sigma was 0\.25 and is now 0\.5"):
        merge(parts, tmp_path / "out")


def test_edited_lines_and_manifests_are_refused(images, tmp_path):
    parts = parts_of(class_spec(images), tmp_path, "1/2", "2/2")
    path = parts[1] / "certificates.jsonl"
    good = path.read_text()
    path.write_text(good.replace('"n0": 10', '"n0": 11', 1))
    assert path.read_text() != good
    with pytest.raises(InputError, match="was changed after it was written"):
        merge(parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path.write_text(good)
    text = (parts[1] / "run.json").read_text()
    (parts[1] / "run.json").write_text(text.replace('"created": "2', '"created": "1'))
    assert (parts[1] / "run.json").read_text() != text
    with pytest.raises(InputError, match="cannot be merged"):
        merge(parts, tmp_path / "out")


def test_one_folder_is_no_merge(whole, tmp_path):
    with pytest.raises(InputError, match="at least two"):
        merge([whole.path], tmp_path / "out")


def test_a_shard_is_resumed_as_that_shard_only(images, whole, tmp_path):
    (part,) = parts_of(class_spec(images), tmp_path, "2/3")
    path = part / "certificates.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.splitlines(keepends=True)[0])
    full_run(None, part, resume=True)  # the shard need not be named again
    assert path.read_bytes() == content
    full_run(None, part, resume=True, shard="2/3")
    assert set(lines(part)) < set(lines(whole.path))
    with pytest.raises(InputError, match="holds shard 2/3 and cannot go on with shard 1/3"):
        full_run(None, part, resume=True, shard="1/3")
    with pytest.raises(InputError, match="holds the whole run and cannot go on with shard 1/3"):
        full_run(None, whole.path, resume=True, shard="1/3")
