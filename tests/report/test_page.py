"""The report: its numbers are those of the metrics, foreign text stays text, and nothing is fetched."""

import base64
import hashlib
import html as htmllib
import json
import math
import re
import shutil
import zlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import yaml
from PIL import Image
from report_runs import HOSTILE_CLASSES, HOSTILE_FILE, class_images, class_run, mask_images, mask_run

import certimed
from certimed.data import open_dataset
from certimed.errors import InputError
from certimed.integrity import write_whole
from certimed.metrics import count_pixels, overlap_scores, summarise
from certimed.metrics.segmentation import DICE_LOW, FOREGROUND
from certimed.report.html.charts import nice_ticks
from certimed.report.html.numbers import down, embedded_json, percent, plain, up
from certimed.report.html.pictures import pixels_to_flip, worked_picture
from certimed.report.profiles import Layers, RadiusProfile, foreground
from certimed.report.sentences import SENTENCES, in_short
from certimed.report.series import series
from certimed.report.tables import per_cent, span_text
from certimed.runs import CERTIFIED, RunFolder, RunSpec

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra: report)")
from certimed.report.html import write_report


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    class_images(folder / "labels", 12, broken=5, hostile=True)
    class_run(folder / "labels", folder / "a", names=HOSTILE_CLASSES)
    class_run(folder / "labels", folder / "b", names=HOSTILE_CLASSES, sigma=0.5)
    mask_images(folder / "scans", 4)
    mask_run(folder / "scans", folder / "m")
    return folder


@pytest.fixture(scope="module")
def page(place):
    write_report([place / "a", place / "b", place / "m"], place / "all.html", verify=False)
    return (place / "all.html").read_text(encoding="utf-8")


def data(page, name):
    text = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S).group(1)
    return json.loads(text)


def records(place, run):
    return [record for record in RunFolder.open(place / run).records() if record.status == CERTIFIED]


def unpacked(text, dtype, shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=dtype).reshape(shape)


def test_bounds_are_rounded_outwards():
    for value in np.random.default_rng(0).random(2_000):
        assert float(down(value)) <= value <= float(up(value))
        assert float(up(value)) - float(down(value)) < 0.00101
    assert (down(0.3), up(0.3), down(0.0625), up(1.0)) == ("0.300", "0.300", "0.062", "1.000")


def test_only_all_is_a_hundred_percent():
    assert [percent(share) for share in (0, 0.004, 0.5, 0.996, 1)] == ["0 %", "< 1 %", "50 %", "> 99 %", "100 %"]
    assert [percent(share, side="lower") for share in (0.004, 0.296, 0.3, 0.996, 1)] == [
        "0 %", "29 %", "30 %", "99 %", "100 %"
    ]  # fmt: skip


def test_json_in_the_page_cannot_end_its_element():
    hostile = {"</script>": "<!--\u2028\u2029]]> & \ud800"}
    text = embedded_json(hostile)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == hostile


def test_foreign_text_loses_what_escaping_would_leave():
    assert plain("a\x00b\u202ec\nd\ud800") == "a b c d\\ud800"
    assert len(plain("x" * 10_000)) == 500


def test_ticks_are_round_and_reach_the_end():
    for largest in (0.003, 0.17, 1.0, 2.46, 37.0):
        ticks = nice_ticks(largest)
        assert ticks[0] == 0 and ticks[-1] <= largest < ticks[-1] + 1.01 * ticks[1]
        assert 3 <= len(ticks) <= 8


def test_the_drawn_change_is_inside_the_ball_and_always_the_same():
    pixels = np.full((3, 40, 30), 0.5, dtype=np.float32)
    one, again = worked_picture(pixels, 0.7, "x", 4), worked_picture(pixels, 0.7, "x", 4)
    assert one == again and one != worked_picture(pixels, 0.7, "y", 4)
    assert 0.698 < one.norm < 0.7


def test_pixels_that_flip_stay_below_the_radius():
    for radius, channels in ((0.5, 1), (1.0, 1), (1.5, 1), (3.0, 3), (1.7321, 3)):
        count = pixels_to_flip(radius, channels)
        assert math.sqrt(count * channels) < radius or count == 0
        assert math.sqrt((count + 1) * channels) >= radius


def test_the_slider_s_numbers_are_those_of_the_metrics_at_every_radius(place):
    scans = open_dataset(place / "scans")
    where = {item: index for index, item in enumerate(scans.ids)}
    for record in records(place, "m"):
        for certificate in record.certificates.values():
            truth, radii = scans.load(where[record.item]).mask, certificate.radius_map()
            layers = Layers.of(certificate)
            assert np.array_equal(np.concatenate([[0.0], layers.radii])[layers.ranks], radii)
            profile = RadiusProfile(layers, certificate.mask, truth, 3)
            for radius in (*layers.radii, 1e-9, 0.1, 9.0):
                wanted = count_pixels(certificate.mask, radii >= radius, truth, 3)
                found = profile.counts(radius)
                for name in ("true_positive", "predicted", "truth", "abstained"):
                    assert np.array_equal(getattr(found, name), getattr(wanted, name))
                assert profile.share(radius) == np.mean(radii >= radius)


def test_the_page_holds_exact_ranks_and_radii(place, page):
    viewer = data(page, "viewer-data")["runs"][0]
    found = {entry["name"]: entry for entry in viewer["images"]}
    for record in RunFolder.open(place / "m").records():
        if record.status != CERTIFIED:
            assert viewer["failed"] == 1
            continue
        entry = found[record.item]
        shape = tuple(entry["layers"]["shape"])
        for one, certificate in zip(viewer["series"], record.certificates.values()):
            packed = entry["layers"]["maps"][one["key"]]
            ranks = unpacked(packed["ranks"], f"<u{packed['bytes']}", shape)
            assert np.array_equal(np.array([0.0, *packed["radii"]])[ranks], certificate.radius_map())
            assert np.array_equal(unpacked(packed["mask"], "<u2", shape), certificate.mask)
            assert entry["series"][one["key"]]["share"] == certificate.share_certified
        low = foreground(np.array(record.scores["plain, tau 0.6"].per_class[DICE_LOW]))
        assert entry["series"][viewer["series"][0]["key"]]["low"] == low


def test_the_gallery_holds_every_image_with_its_certificate(place, page):
    gallery = data(page, "gallery-data")
    one = next(series for series in gallery["series"] if series["runName"] == "a")
    names = [gallery["images"][row["image"]]["name"] for row in one["rows"]]
    certified = records(place, "a")
    assert names == [record.item for record in certified] + ["light/00005.png"]
    for row, record in zip(one["rows"], certified):
        certificate = record.certificates["plain"]
        assert (row["radius"], row["prediction"], row["n"]) == (
            certificate.radius, certificate.prediction, certificate.n
        )  # fmt: skip
        right = certificate.prediction == record.label
        assert row["outcome"] in (("few", "unstable") if certificate.abstained else ("right" if right else "wrong",))
    assert one["rows"][-1]["outcome"] == "failed" and "cannot be read" in one["rows"][-1]["reason"]
    assert sum("thumb" in image for image in gallery["images"]) == 11


def test_shares_on_the_page_count_failed_images_as_not_certified(place, page):
    certified = records(place, "a")
    certificates, labels = [r.certificates["plain"] for r in certified], [r.label for r in certified]
    wanted = summarise(certificates, labels, radii=[0.0], failed=1)
    block = page[page.index('id="values"') :]
    row = block[block.index("<bdi>plain</bdi>") :]
    (low, high), share = wanted.intervals[0], wanted.certified_accuracy[0]
    assert wanted.images == 12
    assert f'{per_cent(share, side="lower")}<br><span class="quiet">{span_text(low, high)}</span>' in row[:1500]
    assert "1 image failed and counts as wrong and not certified" in block


def test_a_failed_image_counts_in_the_denominator_of_its_class(place):
    (one,) = series([place / "a"])
    assert [record.label for record in one.failures] == [1]
    dark, light = one.per_class([0.0])
    assert (dark["images"], dark["failed"], light["images"], light["failed"]) == (6, 0, 6, 1)
    right = sum(
        not c.abstained and c.prediction == y == 1 for c, y in zip(one.certificates, one.labels)
    )  # fmt: skip
    assert light["certified at 0"] == pytest.approx(right / 6)


def test_a_failed_mask_has_dice_0_on_the_page_and_in_every_table(place):
    low, tall = (one.dice()[FOREGROUND, DICE_LOW] for one in series([place / "m"]))
    for one, found in zip(series([place / "m"]), (low, tall)):
        own = [foreground(np.array(scores.per_class[DICE_LOW])) for scores in one.scores]
        assert found.images == 4 and found.mean == pytest.approx(sum(own) / 4)


def test_the_sentence_of_a_run_says_first_what_is_guaranteed_of_the_foreground(page):
    summary = page[page.index('id="summary"') : page.index('id="meaning"')]
    sentence = re.search(r"Under every change shorter than .*?</bdi>", summary.replace("\n", " ")).group(0)
    assert sentence.index("foreground&#39;s mean Dice") < sentence.index("answered as foreground")
    assert "of all pixels" not in sentence


def test_a_mask_of_which_only_background_is_proved_is_no_success(tmp_path):
    """99 % of the pixels may be proved and nothing of what matters: the sentence is about what matters."""
    mask_images(tmp_path / "scans", 2)
    truth = np.zeros((28, 28), dtype=np.uint8)
    truth[:2, :2] = 2
    Image.fromarray(truth).save(tmp_path / "scans" / "masks" / "0.png")
    Image.fromarray(truth * 127).save(tmp_path / "scans" / "images" / "0.png")
    run = mask_run(tmp_path / "scans", tmp_path / "m", taus=(0.75,), budget="fixed:60", sigma=0.5)
    (one,) = series([run.folder.path])
    assert one.tally.foreground[1] == 0 < one.tally.shares[0]
    found = in_short([one])
    assert found.alarm and found.text.startswith("Nothing of the foreground is proved and its guaranteed Dice is 0")
    write_report([run.folder.path], tmp_path / "x.html", verify=False)
    assert '<li class="bad">' in (tmp_path / "x.html").read_text()


def test_a_sentence_names_what_is_wrong_or_nowhere_proved(place):
    (one,) = series([place / "a"])
    right = [c for c, y in zip(one.certificates, one.labels) if not c.abstained and c.prediction == y]
    wrong = sum(not c.abstained for c in one.certificates) - len(right)
    said = in_short([one]).text
    assert said.startswith(f"{len(right)} of 12 images") and (f"; {wrong} more are proved to stay wrong" in said)
    lost = replace(one, class_names=("dark", "light"), records=(*one.records[:-1], replace(one.records[-1], label=2)))
    assert "of class 2 not one image is" in in_short([lost]).text


def test_a_grid_of_radii_is_told_of_and_runs_are_told_apart(place, tmp_path):
    class_run(place / "labels", tmp_path / "grid", budget="grid@200")
    write_report([place / "a", tmp_path / "grid"], tmp_path / "x.html", verify=False)
    page = (tmp_path / "x.html").read_text()
    assert page.count("Radii clump: the budget grid@200") == 1
    for name in ("a", "grid"):
        assert f"plain · sigma 0.25 · {name}</option>" in page


def test_the_request_can_be_copied_and_run_again(place, tmp_path):
    write_report([place / "m"], tmp_path / "x.html", verify=False)
    page = htmllib.unescape((tmp_path / "x.html").read_text())
    assert "certimed certify --config m.yaml --allow-code --out again/m" in page
    text = re.search(r'aria-label="the request"><code>(.*?)</code>', page, re.S).group(1)
    assert RunSpec.from_dict(yaml.safe_load(text)) == certimed.load_run(place / "m").spec


def test_a_statement_names_its_class(place):
    record = records(place, "a")[0]
    certificate = record.certificates["plain"]
    named = certificate.statement(("dark", "light"))
    assert f"answers {('dark', 'light')[certificate.prediction]} for every" in named and "answers class" not in named


def test_no_sentence_of_the_page_rounds_a_failure_probability_away(page):
    text = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    text += "".join(re.findall(r"<script>(.*?)</script>", page, re.S))
    for word in ("robability at least", "no attack", "some attack", "one pixel from black", "99.9 %"):
        assert word not in text, word
    assert "fails with probability at most 0.05 % (1 in 2,000) or 0.1 % (1 in 1,000)" in " ".join(text.split())


def test_more_copies_are_judged_by_the_bound_in_use(place, tmp_path):
    class_run(place / "labels", tmp_path / "two", bound="two-sided")
    for run, words in (("a", "no more than half of the noisy copies"), ("two", "no more noisy copies than another")):
        folder = place / run if run == "a" else tmp_path / run
        write_report([folder], tmp_path / "x.html", verify=False)
        text = (tmp_path / "x.html").read_text()
        assert words in text and "more copies are not expected to help" in " ".join(text.split())


def test_a_read_only_place_is_one_sentence(place, tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", refuse)
        patch.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(InputError, match="cannot be written"):
            write_whole(tmp_path / "x.html", lambda stream: stream.write("x"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_report([place / "a"], tmp_path / "folder", verify=False)


def test_hostile_names_are_text(page):
    for name in HOSTILE_CLASSES:
        assert name.replace("\u2028", " ") not in page
    assert "<script>Object.assign" not in page and "<b onclick" not in page
    assert htmllib.escape(HOSTILE_CLASSES[0], quote=False) in page.replace("&#34;", '"')
    names = {image["name"] for image in data(page, "gallery-data")["images"]}
    assert f"dark/{HOSTILE_FILE}" in names


def test_the_page_fetches_nothing_and_runs_only_its_own_scripts(page):
    bare = re.sub(r'"(data:image/[^"]*)"', '""', page)
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#|")', bare)
    assert "url(" not in bare and "@import" not in bare and "http://" not in bare.replace("http://www.w3.org", "")
    policy = htmllib.unescape(re.search(r'Content-Security-Policy" content="(.*?)"', page).group(1))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 5  # no forest plot, no script of one
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_what_is_proved_what_is_not_and_how_to_check_it_stand_on_the_page(place, page):
    for text in (
        "Euclidean length, L2",
        "Stable is not correct",
        "fails with probability at most",
        "certimed verify RUN",
    ):
        assert text in page
    assert all(RunFolder.open(place / run).digest() in page for run in "abm")
    assert "All seals hold" in page
    assert "light/00005.png" in page and "3.png cannot be read" in page


def test_the_page_says_that_every_statement_was_recomputed(place, tmp_path):
    write_report([place / "a"], tmp_path / "x.html")
    assert "recomputed from their counts and are true" in (tmp_path / "x.html").read_text()


def test_a_run_that_was_changed_raises_the_alarm(place):
    forged = shutil.copytree(place / "a", place / "forged")
    lines = (forged / "certificates.jsonl").read_text().splitlines(keepends=True)
    found = next(i for i, line in enumerate(lines) if '"abstained": false' in line)
    lines[found] = re.sub(r'"p_lower": 0\.\d+', '"p_lower": 0.9999', lines[found])
    (forged / "certificates.jsonl").write_text("".join(lines))
    for verify in (True, False):
        report = write_report([forged], place / "forged.html", verify=verify)
        assert report.notes[0].startswith("forged: ")
        assert "Do not rely on this run" in (place / "forged.html").read_text()


def test_missing_images_leave_a_page_without_pictures(place, tmp_path):
    moved = shutil.copytree(place / "labels", tmp_path / "moved")
    (place / "labels").rename(place / "gone")
    try:
        report = write_report([place / "a"], tmp_path / "bare.html", verify=False)
        assert report.pictures == 0 and "name their folder with --data" in report.notes[0]
        assert "the gallery has no pictures" in (tmp_path / "bare.html").read_text()
        assert write_report([place / "a"], tmp_path / "found.html", data=moved, verify=False).pictures == 11
    finally:
        (place / "gone").rename(place / "labels")


def test_a_truth_that_is_not_the_run_s_is_not_shown(place, tmp_path):
    other = shutil.copytree(place / "scans", tmp_path / "other")
    shutil.copy(other / "masks" / "1.png", other / "masks" / "0.png")
    report = write_report([place / "m"], tmp_path / "m.html", data=other, verify=False)
    assert "The truth of 1 images is not the one the run was scored with" in " ".join(report.notes)
    entries = data((tmp_path / "m.html").read_text(), "viewer-data")["runs"][0]["images"]
    assert ["truth" in entry["layers"] for entry in entries] == [False, True, True]


def test_pictures_that_do_not_fit_are_left_out_and_counted(place, tmp_path):
    report = write_report([place / "a"], tmp_path / "small.html", verify=False, picture_bytes=2_500)
    assert 0 < report.pictures < 11
    assert "pictures were left out" in report.notes[-1]


def test_runs_without_labels_and_truth_say_so(place, tmp_path):
    (tmp_path / "flat").mkdir()
    for path in (place / "labels" / "dark").glob("*.png"):
        shutil.copy(path, tmp_path / "flat")
    class_run(tmp_path / "flat", tmp_path / "u")
    shutil.copytree(place / "scans" / "images", tmp_path / "bare")
    mask_run(tmp_path / "bare", tmp_path / "n")
    report = write_report([tmp_path / "u", tmp_path / "n"], tmp_path / "bare.html", verify=False)
    page = (tmp_path / "bare.html").read_text(encoding="utf-8")
    assert report.notes == () and report.pictures == 6 + 3, report.notes
    assert "These runs have no labels" in page and "Class by class" not in page
    assert "pixels certified (mean), %" in page and "Dice, clean" not in page
    assert {row["outcome"] for row in data(page, "gallery-data")["series"][0]["rows"]} <= {
        "certified",
        "few",
        "unstable",
    }
    (entry, *_) = data(page, "viewer-data")["runs"][0]["images"]
    assert "truth" not in entry["layers"] and "low" not in entry["series"]["r1m0"]


def test_a_run_of_failures_alone_is_refused(tmp_path):
    for path in class_images(tmp_path / "images", 2).rglob("*.png"):
        path.write_bytes(b"not an image")
    class_run(tmp_path / "images", tmp_path / "run")
    with pytest.raises(InputError, match="nothing to report"):
        write_report([tmp_path / "run"], tmp_path / "x.html", verify=False)


def test_one_method_a_run_is_compared_in_one_panel(page):
    assert len(re.findall(r'data-panel="accuracy-', page)) == 1
    assert page.count('class="line c0" data-curve="r0m0"') == page.count('class="line c1" data-curve="r1m0"') == 1


def test_what_cannot_be_reported_is_one_sentence(place, tmp_path):
    with pytest.raises(InputError, match="at least one run"):
        write_report([], tmp_path / "x.html")
    with pytest.raises(InputError, match="named twice"):
        write_report([place / "a", place / "." / "a"], tmp_path / "x.html")
    with pytest.raises(InputError, match="is not a run folder"):
        write_report([place], tmp_path / "x.html")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([place / "a"], tmp_path / "no" / "x.html", verify=False)


def test_a_run_writes_its_page_beside_itself(place):
    certimed.load_run(place / "m").report()
    assert (place / "m" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_lowest_dice_over_radii_never_rises(place):
    for record in records(place, "m"):
        for name, certificate in record.certificates.items():
            profile = RadiusProfile(Layers.of(certificate), certificate.mask, certificate.mask, 3)
            lows = [overlap_scores(profile.counts(radius))[DICE_LOW] for radius in profile.radii]
            assert all((after <= before).all() for before, after in pairwise(lows)), name


def test_a_kind_without_words_of_its_own_has_a_sentence(place, monkeypatch):
    (one,) = series([place / "a"])
    monkeypatch.delitem(SENTENCES, "classes")
    proved = sum(not c.abstained for c in one.certificates)
    assert in_short([one]).text.startswith(
        f"Something is proved about {proved} of 12 images, under every change shorter"
    )
