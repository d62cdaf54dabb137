"""Shards cover every image once, and merged they are the run that was never divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import Certify, full_run, lines, manifest, open_images, write_images

from certimed import InputError
from certimed.runs import RunFolder, Shard, certify_dataset, merge, shard


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 10, broken=(4,))


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    return full_run(images, tmp_path_factory.mktemp("whole") / "run")


def shard_run(images, out, index, count, **options):
    dataset, certify, part = open_images(images), Certify(**options), Shard(index, count)
    section = part.section(dataset.ids)
    with RunFolder.create(out, manifest(dataset, certify), shard=section) as folder:
        list(certify_dataset(dataset.subset(part.indices(dataset.ids)), certify, folder))
    return folder


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


def test_four_shards_merged_equal_one_run(images, whole, tmp_path):
    parts = [tmp_path / f"part-{index}" for index in (1, 2, 3, 4)]
    for index, path in enumerate(parts, 1):
        assert shard_run(images, path, index, 4).shard == Shard(index, 4)
    with merge(parts[::-1], tmp_path / "merged") as merged:
        assert merged.shard is None
    assert lines(tmp_path / "merged") == lines(whole.path)
    assert merged.digest() == whole.digest()
    assert set(merged.timings()) == set(whole.timings())
    finished = RunFolder.resume(tmp_path / "merged", manifest(open_images(images), Certify()))
    assert len(finished.finished()) == 10
    assert len(finished.finished(retry_failed=True)) == 9


def test_a_partial_merge_can_be_finished(images, whole, tmp_path):
    for index in (1, 3):
        shard_run(images, tmp_path / str(index), index, 3)
    dataset, certify = open_images(images), Certify()
    merge([tmp_path / "1", tmp_path / "3"], tmp_path / "merged").close()
    with RunFolder.resume(tmp_path / "merged", manifest(dataset, certify)) as folder:
        assert len(list(certify_dataset(dataset, certify, folder))) == 3
    assert lines(tmp_path / "merged") == lines(whole.path)


def test_overlaps_are_refused(images, tmp_path):
    for name, index, count in (("a", 1, 2), ("b", 1, 3)):
        shard_run(images, tmp_path / name, index, count)
    with pytest.raises(InputError, match=r"both hold image 'dark/00000\.png'"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_by_name(images, tmp_path):
    shard_run(images, tmp_path / "a", 1, 2)
    shard_run(images, tmp_path / "b", 2, 2, sigma=0.5)
    with pytest.raises(InputError, match=r"settings\.sigma was 0\.25 and is now 0\.5"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_edited_lines_and_manifests_are_refused(images, tmp_path):
    for index in (1, 2):
        shard_run(images, tmp_path / str(index), index, 2)
    path = tmp_path / "2" / "certificates.jsonl"
    good = path.read_text()
    path.write_text(good.replace('"n0": 10', '"n0": 11', 1))
    with pytest.raises(InputError, match="was changed after it was written"):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path.write_text(good)
    manifest_path = tmp_path / "2" / "run.json"
    manifest_path.write_text(manifest_path.read_text().replace('"created": "2026', '"created": "2025'))
    with pytest.raises(InputError, match="cannot be merged"):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "out")


def test_one_folder_is_no_merge(whole, tmp_path):
    with pytest.raises(InputError, match="at least two"):
        merge([whole.path], tmp_path / "out")


def test_a_shard_is_resumed_as_that_shard_only(images, tmp_path):
    dataset, certify = open_images(images), Certify()
    shard_run(images, tmp_path / "a", 1, 2)
    section = Shard(1, 2).section(dataset.ids)
    RunFolder.resume(tmp_path / "a", manifest(dataset, certify), shard=section).close()
    with pytest.raises(InputError, match="holds shard 1/2 and cannot go on with the whole run"):
        RunFolder.resume(tmp_path / "a", manifest(dataset, certify))
