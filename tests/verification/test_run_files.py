"""Tampering with a run is caught twice: by digests, and by arithmetic where the digests are forged too."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import Certify, full_run, manifest, open_images, write_images

from certimed import InputError
from certimed.integrity import seal_line, seal_manifest
from certimed.runs import MaskRecord, RunFolder
from certimed.segmentation import certificate_from_agreement
from certimed.verification import compare_counts, resample, verify
from certimed.verification.resampling import choose, recorded_counts


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    base = tmp_path_factory.mktemp("original")
    images = write_images(base / "images", 8, broken=(6,))
    run = full_run(images, base / "run", n=200)
    return base / "run", run.digest()


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original[0], tmp_path / "run")


class Forger:
    """Edits a run folder; ``forge`` also makes the digests right again."""

    def __init__(self, folder, forge):
        self.folder = folder
        self.forge = forge
        self.manifest = json.loads((folder / "run.json").read_text())
        self.records = [json.loads(line) for line in (folder / "certificates.jsonl").read_text().splitlines()]

    @property
    def proved(self):
        """The record with the largest radius among those that are not unanimous."""
        open_to_forgery = [r for r in self.records if r["certificates"] and min(r["certificates"]["none"]["counts"])]
        return max(open_to_forgery, key=lambda r: r["certificates"]["none"]["radius"])

    @property
    def cert(self):
        return self.proved["certificates"]["none"]

    @property
    def failed(self):
        return next(r for r in self.records if r["status"] == "failed")

    def write(self):
        made = seal_manifest(self.manifest) if self.forge else self.manifest
        (self.folder / "run.json").write_text(json.dumps(made, indent=2))
        lines = []
        for record in self.records:
            if self.forge:
                content = {name: value for name, value in record.items() if name != "sha256"}
                lines.append(seal_line(json.dumps(content), made["settings_sha256"]))
            else:
                lines.append(json.dumps(record))
        (self.folder / "certificates.jsonl").write_text("".join(line + "\n" for line in lines))


def change(name, make):
    """Edit one field of the certificate."""

    def edit(f):
        cert = f.cert
        cert[name] = make(cert[name]) if callable(make) else make

    return edit


def in_manifest(*path, value):
    def edit(f):
        place = f.manifest
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value

    return edit


def move_count(f):
    top = f.cert["prediction"]
    other = 1 - top
    f.cert["counts"][top] -= 20
    f.cert["counts"][other] += 20


def swap_certificates(f):
    one, two = [r for r in f.records if r["certificates"]][:2]
    one["certificates"], two["certificates"] = two["certificates"], one["certificates"]


def drop_a_line(f):
    f.records.remove(f.proved)


def double_a_line(f):
    f.records.append(f.proved)


def replace_a_line_by_a_copy_under_a_new_name(f):
    victim = json.loads(json.dumps(f.proved))
    victim["item"] = victim["certificates"]["none"]["item"] = "dark/new.png"
    f.records[f.records.index(f.records[0])] = victim


def fail_and_certify(f):
    f.proved["status"] = "failed"


def certify_a_failure(f):
    f.failed.update(status="certified", reason=None)


def give_a_failure_a_certificate(f):
    f.failed["certificates"] = {"none": f.cert}


def wrong_method(f):
    f.proved["certificates"]["zero-shot"] = f.proved["certificates"].pop("none")
    f.proved["clean"]["zero-shot"] = f.proved["clean"].pop("none")


def extra_samples(f):
    f.cert["n"] += 800
    f.cert["counts"][f.cert["prediction"]] += 800


def all_agree(f):
    f.cert["counts"] = [0, 0]
    f.cert["counts"][f.cert["prediction"]] = f.cert["n"]


def third_class(f):
    f.cert["counts"].append(0)


def longer_run(f):
    f.manifest["data"]["images"] += 1


def whole_run_with_another_alpha(f):
    f.manifest["settings"]["alpha"] = 0.01
    for record in f.records:
        for cert in record["certificates"].values():
            cert["alpha"] = 0.01


def whole_run_with_larger_sigma(f):
    f.manifest["settings"]["sigma"] = 1.0
    for record in f.records:
        for cert in record["certificates"].values():
            cert["sigma"] = 1.0


def provenance(name, value):
    def edit(f):
        f.cert["provenance"][name] = value

    return edit


def torch_version(f):
    f.cert["provenance"]["versions"]["torch"] = "0.1"


# Kinds of tampering that arithmetic and cross-checks catch even when every digest was made right again.
FORGED = {
    "a larger radius": change("radius", lambda r: r * 1.5),
    "a slightly larger radius": change("radius", lambda r: r * (1 + 1e-8)),
    "a smaller radius": change("radius", lambda r: r * 0.5),
    "radius zero": change("radius", 0.0),
    "negative radius": change("radius", -1.0),
    "a larger p_lower": change("p_lower", lambda p: p + 0.01),
    "a smaller p_lower": change("p_lower", lambda p: p - 0.01),
    "p_lower of one": change("p_lower", 1.0),
    "a q_upper where none belongs": change("q_upper", 0.01),
    "counts moved between classes": move_count,
    "counts raised to unanimity": all_agree,
    "counts that do not sum to n": change("counts", lambda c: [c[0] + 1, c[1]]),
    "negative counts": change("counts", lambda c: [-1, sum(c) + 1]),
    "fractional counts": change("counts", lambda c: [float(v) for v in c]),
    "a class added": third_class,
    "more samples claimed": extra_samples,
    "n changed": change("n", 10_000),
    "n0 changed": change("n0", 11),
    "alpha lowered": change("alpha", 1e-6),
    "alpha raised": change("alpha", 0.01),
    "alpha of zero": change("alpha", 0.0),
    "sigma changed": change("sigma", 0.5),
    "seed changed": change("seed", 4),
    "prediction changed": change("prediction", lambda p: 1 - p),
    "prediction outside the classes": change("prediction", 7),
    "abstention denied or invented": change("abstained", lambda a: not a),
    "bound renamed": change("bound", "two-sided"),
    "bound unknown": change("bound", "three-sided"),
    "scope unknown": change("scope", "everything"),
    "space unknown": change("space", "moon"),
    "shape without channels": change("shape", [4]),
    "another image's certificate": change("item", "light/00001.png"),
    "certificates of two images swapped": swap_certificates,
    "a note that claims a correction": change("notes", ["Bonferroni over 2 methods."]),
    "an unknown field": lambda f: f.cert.update(extra=1),
    "a missing field": lambda f: f.cert.pop("provenance"),
    "another schema": change("schema", "certimed/class-certificate/2"),
    "model hash changed": provenance("model", "b" * 64),
    "device changed": provenance("device", "cuda:0"),
    "precision changed": provenance("dtype", "bfloat16"),
    "library version changed": torch_version,
    "a per-image prompt method claiming end-to-end": wrong_method,
    "a line dropped": drop_a_line,
    "a line doubled": double_a_line,
    "a line replaced by a better image's": replace_a_line_by_a_copy_under_a_new_name,
    "a certified image called failed": fail_and_certify,
    "a failed image called certified": certify_a_failure,
    "a certificate for a failed image": give_a_failure_a_certificate,
    "label outside the classes": lambda f: f.proved.update(label=9),
    "label of the wrong kind": lambda f: f.proved.update(label="dark"),
    "clean prediction outside the classes": lambda f: f.proved["clean"].update(none=9),
    "clean prediction of another method": lambda f: f.proved["clean"].update(other=0),
    "manifest: seed": in_manifest("settings", "seed", value=4),
    "manifest: sigma": in_manifest("settings", "sigma", value=0.5),
    "manifest: alpha": in_manifest("settings", "alpha", value=0.01),
    "manifest: n": in_manifest("settings", "n", value=100),
    "manifest: a class dropped": in_manifest("classes", value=["dark"]),
    "manifest: number of images": longer_run,
    "manifest: ids": in_manifest("data", "ids_sha256", value="0" * 64),
    "manifest: precision": in_manifest("provenance", "dtype", value="float16"),
    "manifest: no settings": in_manifest("settings", value=None),
    "alpha changed everywhere": whole_run_with_another_alpha,
    "sigma changed everywhere": whole_run_with_larger_sigma,
}

# Kinds that nothing but a digest can show: the numbers stay consistent.
DIGEST_ONLY = {
    "label changed": lambda f: f.proved.update(label=1 - f.proved["label"]),
    "clean prediction changed": lambda f: f.proved["clean"].update(none=1 - f.proved["clean"]["none"]),
    "reason of a failure": lambda f: f.failed.update(reason="it was fine"),
    "intensity reading": lambda f: f.cert["provenance"].update(intensity="divided by 255, honestly"),
    "a harmless note": change("notes", ["Verified by an expert."]),
    "manifest: model hash": in_manifest("model", "identity", value="b" * 64),
    "manifest: data hash": in_manifest("data", "identity", value="b" * 64),
    "manifest: class names": in_manifest("classes", value=["benign", "malignant"]),
    "manifest: templates": in_manifest("templates", value=["a {}"]),
    "manifest: date": in_manifest("created", value="2020-01-01T00:00:00+00:00"),
    "manifest: command": in_manifest("arguments", value=["nothing"]),
}


def test_there_are_at_least_thirty_kinds():
    assert len(FORGED) >= 30


def test_the_run_itself_holds(run, original):
    verdict = verify(run, expect=original[1])
    assert verdict.ok, verdict.faults
    assert (verdict.images, verdict.failed, verdict.certificates) == (8, 1, 7)


@pytest.mark.parametrize("kind", [*FORGED, *DIGEST_ONLY])
def test_an_edit_is_caught(run, kind):
    forger = Forger(run, forge=False)
    (FORGED | DIGEST_ONLY)[kind](forger)
    forger.write()
    assert not verify(run).ok


@pytest.mark.parametrize("kind", FORGED)
def test_an_edit_with_forged_digests_is_caught(run, kind):
    forger = Forger(run, forge=True)
    FORGED[kind](forger)
    forger.write()
    faults = verify(run).faults
    assert faults
    assert not any("sha256 does not match)" in what and "ids_sha256" not in what for _, what in faults)


@pytest.mark.parametrize("kind", [*FORGED, *DIGEST_ONLY])
def test_any_change_contradicts_a_digest_noted_elsewhere(run, original, kind):
    forger = Forger(run, forge=True)
    (FORGED | DIGEST_ONLY)[kind](forger)
    forger.write()
    if kind in ("manifest: date", "manifest: command"):  # no part of what was proved
        assert verify(run, expect=original[1]).ok
    else:
        assert not verify(run, expect=original[1]).ok


BYTES = {
    "a byte flipped in a number": lambda text: text.replace('"n": 200', '"n": 201', 1),
    "white space added": lambda text: text.replace('"n": 200', '"n":  200', 1),
    "a line cut": lambda text: text[:-30],
    "the last line end lost": lambda text: text[:-1],
    "an empty line": lambda text: text + "\n",
    "a repeated key": lambda text: text.replace('"radius":', '"radius": 9.0, "radius":', 1),
    "not a number": lambda text: text.replace('"sigma": 0.25', '"sigma": NaN', 1),
    "bytes that are no text": lambda text: text + "\udcff\n",
    "everything gone": lambda text: "",
}


@pytest.mark.parametrize("kind", BYTES)
def test_changed_bytes_are_caught(run, kind):
    path = run / "certificates.jsonl"
    path.write_bytes(BYTES[kind](path.read_text()).encode(errors="surrogateescape"))
    faults = verify(run).faults
    assert faults
    assert faults[0][0].startswith("certificates.jsonl")


def test_a_line_of_another_run_is_caught(run, tmp_path):
    images = write_images(tmp_path / "images", 8, broken=(6,))
    full_run(images, tmp_path / "other", n=200, seed=4)
    own = (run / "certificates.jsonl").read_text().splitlines(keepends=True)
    own[0] = (tmp_path / "other" / "certificates.jsonl").read_text().splitlines(keepends=True)[0]
    (run / "certificates.jsonl").write_text("".join(own))
    assert verify(run).faults[0][0] == "certificates.jsonl line 1"


def test_an_unfinished_run_is_named_and_can_be_allowed(run):
    path = run / "certificates.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    assert verify(run).faults == (("certificates.jsonl", "3 of 8 images are missing"),)
    assert verify(run, allow_incomplete=True).ok


def test_a_retried_failure_is_no_double(original, tmp_path):
    base = original[0].parent
    run = shutil.copytree(original[0], tmp_path / "run")
    dataset, certify = open_images(base / "images"), Certify(n=200)
    from certimed.runs import certify_dataset

    with RunFolder.resume(run, manifest(dataset, certify)) as folder:
        assert len(list(certify_dataset(dataset, certify, folder, retry_failed=True))) == 1
    verdict = verify(run)
    assert verdict.ok, verdict.faults
    assert verdict.images == 8
    assert verdict.digest == folder.digest()


def test_single_certificates_are_checked(original, tmp_path):
    cert = next(r for r in RunFolder.open(original[0]).records() if r.certificates).certificates["none"]
    path = tmp_path / "one.json"
    path.write_text(cert.to_json())
    assert verify(path).ok
    path.write_text(cert.to_json().replace('"n": 200', '"n": 2000'))
    assert "counts sum to 200" in verify(path).faults[0][1]
    for content in ("[1]", "{}", '{"schema": "other"}'):
        path.write_text(content)
        with pytest.raises(InputError, match="neither a run folder nor a certificate"):
            verify(path)
    with pytest.raises(InputError):
        verify(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        verify(tmp_path)


def mask_run(folder):
    """A run of two segmented images, without a model."""
    made = {
        "task": "segment", "settings": {"sigma": 0.25, "n0": 10, "n": 100, "tau": 0.75, "alpha": 0.001, "seed": 0,
        "correction": "holm", "k_fwer": 1}, "methods": ["plain"], "model": {"identity": "m"}, "classes": ["a", "b"],
        "data": {"images": 2}, "provenance": {},
    }  # fmt: skip
    generator = np.random.default_rng(0)
    records = []
    for item in ("one", "two"):
        cert = certificate_from_agreement(
            generator.integers(0, 2, (6, 6)), generator.integers(80, 101, (6, 6)), item=item, num_classes=2, n0=10,
            n=100, tau=0.75, alpha=0.001, correction="holm", sigma=0.25, seed=0, shape=(1, 6, 6), model_id="m",
        )  # fmt: skip
        records.append(MaskRecord(item, "certified", certificates={"plain": cert}))
    made["provenance"] = records[0].certificates["plain"].provenance.to_dict()
    with RunFolder.create(folder, made) as target:
        for record in records:
            record.write_arrays(folder)
            target.append(record)
    return folder


MASKS = {
    "threshold lowered": lambda cert, layers: cert.update(threshold=80),
    "threshold raised": lambda cert, layers: cert.update(threshold=100),
    "threshold denied": lambda cert, layers: cert.update(threshold=None),
    "share": lambda cert, layers: cert.update(share_certified=1.0),
    "radius": lambda cert, layers: cert.update(radius=0.5),
    "tau": lambda cert, layers: cert.update(tau=0.9),
    "correction": lambda cert, layers: cert.update(correction="bonferroni"),
    "k_fwer": lambda cert, layers: cert.update(k_fwer=2),
    "alpha": lambda cert, layers: cert.update(alpha=0.01),
    "n": lambda cert, layers: cert.update(n=200),
    "classes": lambda cert, layers: cert.update(num_classes=3),
    "shape": lambda cert, layers: cert.update(shape=[1, 6, 7]),
    "digest": lambda cert, layers: cert.update(arrays_sha256="0" * 64),
    "mask": lambda cert, layers: layers.update(mask=1 - layers["mask"]),
    "agreement": lambda cert, layers: layers.update(agreement=layers["agreement"] + (layers["agreement"] < 90)),
    "certified": lambda cert, layers: layers.update(certified=~layers["certified"]),
    "a layer gone": lambda cert, layers: layers.pop("certified"),
    "a layer added": lambda cert, layers: layers.update(more=layers["mask"]),
    "floats": lambda cert, layers: layers.update(agreement=layers["agreement"].astype(float)),
}


@pytest.mark.parametrize("kind", [None, *MASKS])
def test_tampering_with_masks_is_caught(tmp_path, kind):
    run = mask_run(tmp_path / "run")
    forger = Forger(run, forge=True)
    record = forger.records[0]
    path = run / record["arrays"]["plain"]
    with np.load(path) as stored:
        layers = dict(stored)
    if kind is not None:
        MASKS[kind](record["certificates"]["plain"], layers)
        np.savez_compressed(path, **layers)
        forger.write()
    assert verify(run).ok is (kind is None), verify(run).faults


def test_arrays_that_are_gone_or_pickled_are_caught(tmp_path):
    run = mask_run(tmp_path / "run")
    path = next((run / "arrays").iterdir())
    content = path.read_bytes()
    path.unlink()
    assert "cannot be read" in verify(run).faults[0][1]
    path.write_bytes(content[:50])
    assert "cannot be read" in verify(run).faults[0][1]
    layers = {name: np.array([{}], dtype=object) for name in ("mask", "agreement", "certified")}
    np.savez(path, allow_pickle=True, **layers)
    assert "cannot be read" in verify(run).faults[0][1]


def test_resampling_tells_an_honest_run_from_invented_counts(original):
    base = original[0].parent
    dataset, certify = open_images(base / "images"), Certify(n=200)
    position = {item: index for index, item in enumerate(dataset.ids)}

    def recount(item):
        _, certificates = certify(dataset.load(position[item]))
        return {name: cert.counts for name, cert in certificates.items()}

    records = [json.loads(line) for line in (original[0] / "certificates.jsonl").read_text().splitlines()]
    counts = recorded_counts(records)
    honest = resample(counts, recount, 3, "salt")
    assert len(honest) == 3
    assert all(one.equal and one.consistent for one in honest)
    invented = {item: {"none": [200 - found["none"][0], found["none"][0]]} for item, found in counts.items()}
    assert not all(one.consistent for one in resample(invented, recount, 7, "salt"))
    assert set(choose(sorted(counts), 3, "a")) != set(choose(sorted(counts), 3, "b"))
    with pytest.raises(InputError, match="redraws nothing"):
        resample(counts, recount, 0, "salt")


def test_the_consistency_test_keeps_its_level_and_has_power():
    generator = np.random.default_rng(1)
    values = [
        compare_counts("x", "m", [a, 1000 - a], [b, 1000 - b]).p_value
        for a, b in generator.binomial(1000, 0.7, (300, 2))
    ]
    assert np.mean(np.array(values) <= 0.05) <= 0.08
    assert not compare_counts("x", "m", [9_000, 1_000], [8_500, 1_500]).consistent
    assert compare_counts("x", "m", [9_000, 1_000], [8_990, 1_010]).consistent


@pytest.mark.parametrize(("a", "n", "b", "m"), [(3, 10, 5, 12), (0, 8, 8, 8), (7, 7, 1, 9), (5, 10, 5, 10)])
def test_fisher_tails_equal_scipy(a, n, b, m):
    from scipy.stats import hypergeom

    from certimed.verification.resampling import _fisher

    law = hypergeom(n + m, a + b, n)
    expected = min(1.0, 2 * min(law.sf(a - 1), law.cdf(a)))
    assert _fisher(a, n, b, m) == pytest.approx(expected, rel=1e-9)


def fuzz(run, name, data):
    """Any bytes, or the true file with some bytes changed; answers are verdicts or one sentence."""
    path = run / name
    good = path.read_bytes()
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=200))
    else:
        content = bytearray(good)
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        verdict = verify(run)
        # White space between the parts of run.json is the one change without a meaning.
        assert (
            not verdict.ok or bytes(content) == good or (name == "run.json" and json.loads(content) == json.loads(good))
        )
    except InputError:
        pass
    finally:
        path.write_bytes(good)
    path.write_bytes(content)
    try:
        folder = RunFolder.open(run)
        folder.finished()
        list(folder.records())
    except InputError:
        pass
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("name", ["run.json", "certificates.jsonl"])
def test_damaged_files_never_raise_anything_else(original, tmp_path_factory, name):
    run = shutil.copytree(original[0], tmp_path_factory.mktemp("fuzz") / "run")

    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def attack(data):
        fuzz(run, name, data)

    attack()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "certificates.jsonl"])
def test_ten_thousand_damaged_files(original, tmp_path_factory, name):
    run = shutil.copytree(original[0], tmp_path_factory.mktemp("fuzz") / "run")

    @settings(max_examples=5_000, deadline=5_000)
    @given(data=st.data())
    def attack(data):
        fuzz(run, name, data)

    attack()
