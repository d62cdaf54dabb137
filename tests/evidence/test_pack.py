"""Evidence packs: whole, the same bytes each time, checked without model and data, and no tampering goes unseen."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cli_helper import call, refused
from tiny_runs import class_spec, full_run, mask_spec, write_images, write_scans

import certimed
from certimed import AttackSpec, InputError, MeasureTarget, attack, check_pack, pack
from certimed.evidence.document import as_pdf
from certimed.integrity import SETTINGS_DIGEST, digest, pack_message, seal_line
from certimed.verification import verify_pack

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra: report)")
serialization = pytest.importorskip(
    "cryptography.hazmat.primitives.serialization", reason="cryptography is not installed (extra: pack)"
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402

OPENSSH = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_key(folder: Path, name: str, how=PEM) -> tuple[Path, Path]:
    """A new private key and its public half."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / name, folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(*how))
    form = serialization.PublicFormat
    of = (
        (serialization.Encoding.OpenSSH, form.OpenSSH)
        if how is OPENSSH
        else (serialization.Encoding.PEM, form.SubjectPublicKeyInfo)
    )
    public.write_bytes(key.public_key().public_bytes(*of))
    return private, public


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of each kind, one of them attacked and with a failed image; keys; a signed pack of all."""
    folder = tmp_path_factory.mktemp("evidence")
    images, scans = write_images(folder / "images", 5, broken=(4,)), write_scans(folder / "scans", 3)
    labels = full_run(class_spec(images, budget=100), folder / "labels")
    attack(labels.folder.path, AttackSpec(steps=2, copies=4, bisections=1, n=200), images=1, allow_code=True)
    full_run(mask_spec(scans), folder / "masks")
    target = MeasureTarget(("area:1",), (0.05, 0.1), spacing=(2.0, 3.0))
    full_run(mask_spec(scans, target=target, n0=None), folder / "areas")
    write_key(folder, "key")
    write_key(folder, "other", OPENSSH)
    pack([folder / name for name in ("labels", "masks", "areas")], folder / "pack", sign=folder / "key", pdf=False)
    shutil.move(images, folder / "away")
    shutil.move(scans, folder / "gone")
    return folder


@pytest.fixture
def copy(place, tmp_path):
    """The pack on another machine."""
    return shutil.copytree(place / "pack", tmp_path / "pack")


def reseal(folder: Path) -> None:
    """Write all digests anew, as a forger would who has no key."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    own = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    listed = {name: value for name, value in own.items() if name not in ("manifest.json", "signature.json")}
    write(folder / "manifest.json", {"schema": "certimed/pack/1", "root": digest(listed), "files": listed})


def write(path: Path, data) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")


def changed(folder: Path, name: str, change) -> None:
    """A JSON file of the pack after ``change``."""
    data = json.loads((folder / name).read_text())
    change(data)
    write(folder / name, data)


def statement(change):
    return lambda folder: changed(folder, "statement.json", change)


def first(change):
    """A change of what the statement says of the run of labels."""
    return statement(lambda data: change(next(run for run in data["runs"] if run["name"] == "labels")))


def text(name, old, new):
    def forge(folder):
        before = (folder / name).read_text()
        assert old in before, old
        (folder / name).write_text(before.replace(old, new))

    return forge


def line(run, change):
    """One line of a run changed and sealed again."""

    def forge(folder):
        place = folder / "runs" / run
        settings = json.loads((place / "run.json").read_text())[SETTINGS_DIGEST]
        lines = place.joinpath("certificates.jsonl").read_text().splitlines()
        number = next(i for i, one in enumerate(lines) if '"status": "certified"' in one)
        data = json.loads(lines[number])
        del data["sha256"]
        change(data)
        lines[number] = seal_line(json.dumps(data), settings)
        place.joinpath("certificates.jsonl").write_text("\n".join(lines) + "\n")

    return forge


def drop(run, name, keep=slice(None, -1)):
    def forge(folder):
        path = folder / "runs" / run / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[keep]))

    return forge


def noisier(folder):
    path = next((folder / "runs/masks/arrays").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def swapped(folder):
    shutil.rmtree(folder / "runs/areas")
    shutil.copytree(folder / "runs/masks", folder / "runs/areas")


FORGED = {
    "more images certified": first(lambda run: run["summary"].update(certified=9)),
    "failures hidden in the summary": first(lambda run: run["summary"].update(failed=0)),
    "accuracy raised": first(lambda run: run["summary"]["results"]["plain"].update(clean_accuracy=0.99)),
    "the sentence made nicer": first(lambda run: run["sentences"][0].update(text="All images are proved")),
    "the alarm silenced": first(lambda run: run["sentences"][0].update(alarm=not run["sentences"][0]["alarm"])),
    "an open question dropped": first(lambda run: run["not_established"].pop()),
    "a limit dropped": statement(lambda data: data["limits"].pop()),
    "deviations dropped": first(lambda run: run["deviations"].clear()),
    "failed images dropped": first(lambda run: run["failed"].clear()),
    "attacks not mentioned": first(lambda run: run.update(attacks=None)),
    "an attack made weaker": first(lambda run: run["attacks"]["summary"][0].update(inside=0, attacked=99)),
    "another model": first(lambda run: run["model"].update(identity="0" * 64)),
    "another sigma": first(lambda run: run["request"].update(sigma=1.0)),
    "another device": first(lambda run: run["environment"].update(device="cuda")),
    "another class name": first(lambda run: run.update(classes=["benign", "malignant"])),
    "fewer images in the data": first(lambda run: run["data"].update(images=1)),
    "a date": first(lambda run: run.update(created="2020-01-01T00:00:00+00:00")),
    "methods renamed": first(lambda run: run["methods"][0].update(scope="frozen at x")),
    "a run left out": statement(lambda data: data["runs"].pop()),
    "a run named twice": statement(lambda data: data["runs"].append(data["runs"][0])),
    "another identification": statement(lambda data: data.update(identification="0" * 64)),
    "a field added": statement(lambda data: data.update(conforms_to="everything")),
    "no run at all": statement(lambda data: data.update(runs=[])),
    "the report's words": text("report.html", "What was not established", "What was established"),
    "the report's digest": text("report.html", "Report identification", "Accredited report"),
    "the log": text("verification.json", '"true": true', '"true": false'),
    "a log of more": text("verification.json", '"certificates": 3', '"certificates": 30'),
    "the request": text("redo/labels.yaml", "sigma: 0.25", "sigma: 0.5"),
    "the commands": text("redo/commands.sh", "certimed certify", "certimed demo"),
    "the environment": text("environment.json", "cpu", "gpu"),
    "the schema": text("statement.schema.json", "certimed/statement/1", "certimed/statement/9"),
    "the table of attacks": text("attacks/labels.json", '"attacked": ', '"attacked": 1'),
    "a strange file": lambda folder: (folder / "accreditation.pdf").write_bytes(b"%PDF"),
    "a strange run": lambda folder: shutil.copytree(folder / "runs/masks", folder / "runs/more"),
    "runs swapped": swapped,
    "a radius raised": line("labels", lambda data: data["certificates"][0]["claim"].update(radius=9.0)),
    "an answer changed": line("labels", lambda data: data["certificates"][0]["claim"].update(prediction=1)),
    "a label changed": line("labels", lambda data: data.update(label=1 - data["label"])),
    "an interval narrowed": line(
        "areas", lambda data: data["certificates"][0]["claim"]["intervals"][0].update(lower=[1e9, 1e9])
    ),
    "an image dropped": drop("masks", "certificates.jsonl"),
    "an attack dropped": drop("labels", "attacks.jsonl"),
    "an array changed": noisier,
    "a manifest of a run": text("runs/labels/run.json", '"sigma": 0.25', '"sigma": 0.2'),
}
UNSEEN_WITHOUT_KEY = {"the page": text("page.html", "</h1>", " of an accredited laboratory</h1>")}
"""What follows from no run: only the signature, or the root noted elsewhere, shows it."""


def test_a_pack_is_whole_and_true_on_another_machine(copy, place):
    review = check_pack(copy, key=place / "key.pub")
    verdict = review.verdict
    assert verdict.ok and verdict.key_checked and review.other_version is None and review.compared >= 9
    assert {name: one.images for name, one in verdict.verdicts.items()} == {"labels": 5, "masks": 3, "areas": 3}
    names = {path.name for path in copy.iterdir()}
    assert {"report.html", "page.html", "statement.json", "statement.schema.json", "environment.json", "redo",
            "verification.json", "manifest.json", "signature.json", "runs", "attacks"} == names  # fmt: skip
    said = call("verify", copy, "--key", place / "key.pub").out
    assert "11 images in 3 runs" in said and "signed by the key you named" in said
    assert verdict.root in said and call("verify", copy, "--expect", verdict.root).out == said.replace(
        "the key you named", "a key that was not compared; name yours with --key"
    )


def test_no_file_can_be_changed_removed_or_added(copy):
    for path in [path for path in sorted(copy.rglob("*")) if path.is_file() and path.name != "manifest.json"]:
        kept, name = path.read_bytes(), path.relative_to(copy).as_posix()
        path.write_bytes(kept[:-2] + bytes([kept[-2] ^ 1]) + kept[-1:])
        # What a statement or a signature that is no JSON any more says cannot be known.
        assert _caught(copy), f"{name} changed"
        path.unlink()
        if name != "signature.json":  # a pack need not be signed; see --key
            assert _caught(copy), f"{name} removed"
        path.write_bytes(kept)
    for added in (copy / "more.txt", copy / "runs" / "labels" / "more.jsonl", copy / "redo" / "x.yaml"):
        added.write_text("x")
        assert [where for where, _ in verify_pack(copy).faults] == [added.relative_to(copy).as_posix()]
        added.unlink()
    assert verify_pack(copy).ok


def _caught(folder: Path, **how) -> bool:
    try:
        return not check_pack(folder, **how).verdict.ok
    except InputError:
        return True


@pytest.mark.parametrize("name", FORGED)
def test_a_forger_who_writes_all_digests_anew_is_caught(name, copy, place):
    (copy / "signature.json").unlink()
    FORGED[name](copy)
    reseal(copy)
    assert _caught(copy), name


@pytest.mark.parametrize("name", UNSEEN_WITHOUT_KEY)
def test_what_follows_from_no_run_is_shown_by_signature_and_root(name, copy, place):
    root = verify_pack(copy).root
    UNSEEN_WITHOUT_KEY[name](copy)
    reseal(copy)
    assert "signature does not hold" in verify_pack(copy).faults[0][1]
    (copy / "signature.json").unlink()
    assert not _caught(copy) and _caught(copy, expect=root) and _caught(copy, key=place / "key.pub")


def test_signatures_of_others_are_no_signatures(copy, place, tmp_path):
    other = place / "other.pub"
    assert "another key" in verify_pack(copy, key=other).faults[0][1]
    pack([place / "masks"], tmp_path / "second", sign=place / "other", pdf=False)  # a key as ssh-keygen writes it
    assert verify_pack(tmp_path / "second", key=other).key_checked
    shutil.copy(tmp_path / "second" / "signature.json", copy)
    assert "does not hold" in verify_pack(copy).faults[0][1]
    key = serialization.load_ssh_private_key((place / "other").read_bytes(), None)
    mine = {
        "schema": "certimed/signature/1",
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        "signature": base64.b64encode(key.sign(pack_message(verify_pack(copy).root))).decode(),
    }
    write(copy / "signature.json", mine)
    assert verify_pack(copy).ok and not verify_pack(copy, key=place / "key.pub").ok
    write(copy / "signature.json", {**mine, "schema": "x"})
    assert not verify_pack(copy).ok
    (copy / "signature.json").unlink()
    assert "is not signed" in verify_pack(copy, key=other).faults[0][1]


def test_a_link_to_the_same_bytes_is_not_the_file(copy, tmp_path):
    shutil.copy(copy / "page.html", tmp_path / "page.html")
    (copy / "page.html").unlink()
    (copy / "page.html").symlink_to(tmp_path / "page.html")
    assert verify_pack(copy).faults[0][0] == "page.html"


def test_a_pack_of_another_version_says_that_its_documents_were_not_compared(copy):
    statement(lambda data: data.update(certimed="0.0.1"))(copy)
    (copy / "signature.json").unlink()
    reseal(copy)
    review = check_pack(copy)
    assert review.other_version == "0.0.1" and review.verdict.ok and not review.compared
    assert "written by version 0.0.1" in call("verify", copy).out


def test_equal_runs_give_equal_bytes(place, tmp_path):
    made = [pack([place / "masks"], tmp_path / str(number) / "pack", pdf=False) for number in (1, 2)]
    assert made[0].archive.read_bytes() == made[1].archive.read_bytes() and made[0].root == made[1].root
    with zipfile.ZipFile(made[0].archive) as archive:
        archive.extractall(tmp_path / "out")
    assert check_pack(tmp_path / "out" / "pack").verdict.ok
    assert (certimed.load_run(place / "masks").pack(tmp_path / "own", pdf=False)).root == made[0].root


def test_the_statement_fits_its_schema(place):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((place / "pack" / "statement.schema.json").read_text())
    data = json.loads((place / "pack" / "statement.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(data)
    labels = next(run for run in data["runs"] if run["name"] == "labels")
    assert labels["attacks"]["summary"] and labels["failed"][0][0].endswith("00004.png")
    assert any("Turned" in question for question, _ in labels["not_established"])


def test_the_test_report_is_laid_out_as_laboratories_do(place):
    page = (place / "pack" / "report.html").read_text()
    heads = ["1 Laboratory", "2 What was tested", "3 How it was tested", "4 By which version", "5 Results",
             "6 Deviations", "7 What was not established", "8 Known limits", "9 Check it", "10 Where standards",
             "11 To paste", "12 Authorised by"]  # fmt: skip
    assert sorted(heads, key=page.index) == heads
    assert "no claim of conformity" in page and "Article 15(5)" in page and "5.3 Stability" in page
    assert "<script" not in page and "Person responsible" in page
    statement = json.loads((place / "pack" / "statement.json").read_text())
    assert statement["identification"] in page and all(run["summary"]["digest"] in page for run in statement["runs"])
    assert "Robustness analysis. Provable robustness was assessed by randomized smoothing" in page


def test_images_of_patients_stay_out_unless_asked_for(place, tmp_path):
    assert "data:image" not in (place / "pack" / "page.html").read_text()
    shutil.copytree(place / "away", place / "images")
    try:
        pack([place / "labels"], tmp_path / "p", pdf=False, pictures=True)
    finally:
        shutil.rmtree(place / "images")
    assert "data:image" in (tmp_path / "p" / "page.html").read_text()


def test_the_page_of_a_pack_shows_the_attacks(place):
    page = (place / "pack" / "page.html").read_text()
    assert 'id="sandwich"' in page and "certificates attacked" in page


def test_the_pdf_is_the_test_report(place, tmp_path):
    pytest.importorskip("weasyprint", reason="WeasyPrint is not installed (extra: pack)")
    folder = pack([place / "masks"], tmp_path / "p").folder
    page = (folder / "report.html").read_bytes()
    made = as_pdf(page.decode(), hashlib.sha256(page).hexdigest())
    assert made.startswith(b"%PDF") and (folder / "report.pdf").read_bytes() == made
    assert check_pack(folder).verdict.ok


def test_what_is_no_evidence_is_refused_in_one_sentence(place, tmp_path):
    forged = shutil.copytree(place / "masks", tmp_path / "forged")
    body = (forged / "certificates.jsonl").read_text()
    (forged / "certificates.jsonl").write_text(body.replace('"num_classes": 2', '"num_classes": 3', 1))
    assert "is not evidence" in refused("pack", forged, "--out", tmp_path / "x", "--no-pdf")
    assert not (tmp_path / "x").exists()
    assert "is not empty" in refused("pack", place / "masks", "--out", place / "pack")
    (tmp_path / "bad").write_text("no key")
    said = refused("pack", place / "masks", "--out", tmp_path / "x", "--sign", tmp_path / "bad")
    assert "cannot be read as a private key" in said
    assert "--key is of an evidence pack" in refused("verify", place / "masks", "--key", place / "key.pub")
    assert "cannot be read as a public key" in refused("verify", place / "pack", "--key", tmp_path / "bad")


def test_a_pack_is_verified_without_torch_and_without_the_model(copy):
    code = (
        "import sys\nfrom certimed.verification import verify_pack\n"
        f"assert verify_pack({str(copy)!r}).ok\nassert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
