"""Seeded hostile inputs: valid files, damaged byte by byte or value by value, and everything that reads them.

:func:`attack` makes input number ``seed`` of one kind and hands it to all its readers. What they may do is return, or
raise a CertimedError of one sentence; anything else comes out.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from certimed.certificates import certificate_from_dict
from certimed.cli.request import resumed
from certimed.data import identity, open_dataset
from certimed.errors import CertimedError
from certimed.exports.summary import summary
from certimed.exports.tables import write_cohen, write_csv
from certimed.integrity import line_holds, seal_line, seal_manifest, strict_json
from certimed.prompts import Prompt
from certimed.runs import RunFolder, RunSpec, merge
from certimed.verification import verify

SECONDS = 5.0
"""Processor time one input may take."""

WEIRD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**39, -(10**30), 0.0, -0.0, 5e-324, 1e308, 0.5, 1.0, "", "\0", "0",
    "\x1b[31mred", "\u202efdp", "../../../outside", "/tmp/outside", "C:\\outside", "a" * 5000, "[bold]x[/]", "<script>",
    "\ud800", [], {}, [[]], {"": {}}, [0] * 300, {"item": "x"}, "certified", "failed", "NaN", "1e400",
)  # fmt: skip
LITERALS = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 2000, "\\u0000", '"\\ud800"')
WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 40_000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 2**63 - 1)


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Bytes with one to three kinds of damage."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(found) + 1)
        kind = draw.randrange(7)
        if kind == 0 and found:
            for _ in range(draw.randint(1, 8)):
                found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del found[at:]
        elif kind == 2:
            # The places where headers keep their sizes come more often than others.
            at = draw.randrange(min(len(found), 400) + 1) if draw.random() < 0.7 else at
            width = draw.choice((1, 2, 4, 8))
            word = draw.choice(WORDS) % (1 << 8 * width)
            found[at : at + width] = word.to_bytes(width, draw.choice(("little", "big")))
        elif kind == 3:
            found[at:at] = draw.randbytes(draw.randint(1, 64))
        elif kind == 4:
            del found[at : at + draw.randint(1, 64)]
        elif kind == 5:
            found[at:at] = found[at : at + draw.randint(1, 256)]
        else:
            found[at : at + draw.randint(1, 16)] = draw.randbytes(draw.randint(1, 16))
    return bytes(found)


def changed(draw: random.Random, value: Any) -> Any:
    """A JSON value with one of its parts replaced, dropped, doubled or renamed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        found = dict(value)
        kind = draw.random()
        if kind < 0.1:
            del found[name]
        elif kind < 0.15:
            found[str(draw.choice(WEIRD))[:50]] = found.pop(name)
        else:
            found[name] = changed(draw, value[name])
        return found
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        kind = draw.random()
        middle = [] if kind < 0.1 else [value[at]] * 2 if kind < 0.2 else [changed(draw, value[at])]
        return [*value[:at], *middle, *value[at + 1 :]]
    return draw.choice(WEIRD)


def changed_text(draw: random.Random, text: str) -> bytes:
    """JSON text, changed as a value or as bytes."""
    kind = draw.random()
    if kind < 0.6:
        return json.dumps(changed(draw, json.loads(text))).encode()
    if kind < 0.75:
        at = draw.randrange(len(text))
        return (text[:at] + draw.choice(LITERALS) + text[at + draw.randint(0, 9) :]).encode(errors="surrogatepass")
    return damaged(draw, text.encode())


@dataclass(frozen=True)
class Kit:
    """Valid files to start from, and an empty folder for damaged ones.

    Attributes:
        classes, masks: closed run folders of both tasks.
        prompt: a prompt file.
        images: encoded images by file name.
    """

    place: Path
    classes: Path
    masks: Path
    prompt: Path
    images: dict[str, bytes]


def encoded_images(folder: Path) -> dict[str, bytes]:
    """Small valid files of every format, by name."""
    import nibabel
    import pydicom
    from test_data_dicom import write

    draw = np.random.default_rng(0)
    colour = draw.integers(0, 256, (20, 16, 3), dtype=np.uint8)
    deep = draw.integers(0, 65_536, (20, 16), dtype=np.uint16)
    made: dict[str, bytes] = {}
    for name, pixels, options in (
        ("colour.png", colour, {}),
        ("deep.png", deep, {}),
        ("colour.jpg", colour, {"quality": 80}),
        ("progressive.jpg", colour, {"progressive": True}),
        ("plain.tif", colour, {}),
        ("deep.tif", deep, {"compression": "tiff_lzw"}),
        ("deflated.tif", colour, {"compression": "tiff_adobe_deflate"}),
        ("colour.bmp", colour, {}),
        ("grey.gif", colour[..., 0], {}),
        ("colour.webp", colour, {}),
    ):
        stream = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
        Image.fromarray(pixels).save(stream, kind, **options)
        made[name] = stream.getvalue()
    made["grey.dcm"] = write(folder / "grey.dcm", deep >> 4, bits=12, WindowCenter=900, WindowWidth=300).read_bytes()
    squeezed = pydicom.dcmread(folder / "grey.dcm")
    squeezed.compress(pydicom.uid.RLELossless)
    squeezed.save_as(folder / "rle.dcm")
    made["rle.dcm"] = (folder / "rle.dcm").read_bytes()
    volume = nibabel.Nifti1Image(draw.normal(100, 10, (6, 7, 8)).astype(np.float32), np.eye(4))
    made["volume.nii"] = volume.to_bytes()
    made["volume.nii.gz"] = gzip.compress(volume.to_bytes())
    stream = io.BytesIO()
    arrays = {"images": colour[None].repeat(3, 0), "labels": np.array([0, 1, 0]), "class_names": np.array(["a", "b"])}
    np.savez_compressed(stream, **arrays)
    made["set.npz"] = stream.getvalue()
    stream = io.BytesIO()
    np.savez(stream, images=deep[None], masks=(deep[None] > 9).astype(np.uint8))
    made["masked.npz"] = stream.getvalue()
    return made


def attack_image(kit: Kit, draw: random.Random) -> None:
    """A damaged image file, read as a person's only image."""
    name = draw.choice(list(kit.images))
    data = kit.images[name]
    if name.endswith(".gz") and draw.random() < 0.6:
        data = gzip.compress(damaged(draw, gzip.decompress(data)))
    else:
        data = damaged(draw, data)
    # A name of its own: readers may remember what a file of this name, size and time had in it.
    path = kit.place / f"{draw.randrange(10**9)}-{name}"
    path.write_bytes(data)

    def read() -> None:
        dataset = open_dataset(path)
        pixels = dataset.load(len(dataset) - 1).pixels
        assert pixels.dtype == np.float32
        assert pixels.ndim == 3
        assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1

    allowed(read)
    allowed(lambda: identity(open_dataset(path)))
    path.unlink()


def attack_manifest(kit: Kit, draw: random.Random) -> None:
    """A run whose manifest was changed, its digests made right again in half of the cases."""
    whole = draw.choice((kit.classes, kit.masks))
    run = Path(shutil.copytree(whole, kit.place / "run"))
    text = (run / "run.json").read_text(encoding="utf-8")
    if draw.random() < 0.5:
        value = changed(draw, json.loads(text))
        if isinstance(value, dict):
            with suppress(TypeError, ValueError):
                value = seal_manifest(value)
        data = json.dumps(value).encode()
    else:
        data = changed_text(draw, text)
    (run / "run.json").write_bytes(data)
    use_run(kit, run, whole, json.loads(text))


def attack_lines(kit: Kit, draw: random.Random) -> None:
    """A run with a changed line, its digest made right again in half of the cases; or changed arrays or timings."""
    whole = draw.choice((kit.classes, kit.masks))
    run = Path(shutil.copytree(whole, kit.place / "run"))
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    lines = (run / "certificates.jsonl").read_text(encoding="utf-8").splitlines()
    at = draw.randrange(len(lines))
    kind = draw.random()
    if kind < 0.1:
        (run / "timing.jsonl").write_bytes(damaged(draw, (run / "timing.jsonl").read_bytes()))
    elif kind < 0.25 and whole == kit.masks:
        path = draw.choice(sorted((run / "arrays").iterdir()))
        path.write_bytes(damaged(draw, path.read_bytes()))
    elif kind < 0.6:
        value = json.loads(lines[at])
        value.pop("sha256")
        value = changed(draw, value)
        lines[at] = json.dumps(value)
        if isinstance(value, dict) and value:
            lines[at] = seal_line(lines[at], manifest["settings_sha256"])
            assert line_holds(lines[at], manifest["settings_sha256"])
        (run / "certificates.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        parts = [line.encode() for line in lines]
        parts[at] = changed_text(draw, lines[at])
        (run / "certificates.jsonl").write_bytes(b"\n".join(parts) + (b"\n" if draw.random() < 0.8 else b""))
    use_run(kit, run, whole, manifest)


def use_run(kit: Kit, run: Path, whole: Path, manifest: dict[str, Any]) -> None:
    """Everything that reads a run folder."""

    def resume() -> None:
        with RunFolder.resume(run, {name: value for name, value in manifest.items() if "sha256" not in name}) as folder:
            folder.finished(retry_failed=True)

    opened = lambda: RunFolder.open(run)  # noqa: E731
    for read in (
        lambda: verify(run),
        lambda: verify(run, allow_incomplete=True, expect="0" * 64),
        lambda: list(opened().records()),
        lambda: (opened().shard, opened().digest(), opened().timings()),
        lambda: (opened().task, opened().classes, opened().methods),
        lambda: RunSpec.from_dict(opened().manifest.get("request")),
        lambda: resumed("classes", opened().manifest.get("request"), {}, run),
        lambda: summary(opened()),
        lambda: write_csv(opened(), kit.place / "table.csv"),
        lambda: write_cohen(opened(), kit.place / "table.tsv"),
        lambda: merge([run, whole], kit.place / "merged").close(),
        resume,
    ):
        allowed(read)
    for left in ("run", "merged"):
        shutil.rmtree(kit.place / left, ignore_errors=True)
    for left in ("table.csv", "table.tsv"):
        (kit.place / left).unlink(missing_ok=True)


def attack_certificate(kit: Kit, draw: random.Random) -> None:
    """One certificate as a file of its own."""
    line = json.loads((kit.classes / "certificates.jsonl").read_text(encoding="utf-8").splitlines()[0])
    data = changed_text(draw, json.dumps(line["certificates"][0]))
    path = kit.place / "certificate.json"
    path.write_bytes(data)
    allowed(lambda: verify(path))
    allowed(lambda: certificate_from_dict(strict_json(data.decode(errors="replace"), "the certificate")))
    path.unlink()


def attack_prompt(kit: Kit, draw: random.Random) -> None:
    """A prompt file with a damaged header, metadata or tensor."""
    data = kit.prompt.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    path = kit.place / "prompt.safetensors"
    kind = draw.random()
    if kind < 0.3:
        path.write_bytes(damaged(draw, data))
    elif kind < 0.6:
        header = changed_text(draw, data[8 : 8 + size].decode())
        claimed = len(header) if draw.random() < 0.8 else draw.choice(WORDS)
        path.write_bytes(struct.pack("<Q", claimed) + header + data[8 + size :])
    else:
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
        name = next(iter(metadata))
        metadata[name] = changed_text(draw, metadata[name]).decode(errors="replace")
        shape = draw.choice(((5, 16), (3, 5, 16), (0, 16), (5,), (2, 2, 2, 2), (1,)))
        kept = draw.choice((torch.float32, torch.float32, torch.float16, torch.int64))
        context = torch.full(shape, draw.choice((0.0, 1.0, 3e38)), dtype=torch.float32).to(kept)
        save_file({draw.choice(("context", "context", "other")): context}, path, metadata=metadata)
    allowed(lambda: Prompt.load(path))
    path.unlink()


def attack_table(kit: Kit, draw: random.Random) -> None:
    """A flat folder of images with a damaged table of labels."""
    folder = kit.place / "folder"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(kit.images["colour.png"])
    table = b"image,label,split,patient\na.png,dark,train,1\nb.png,light,test,2\n" * draw.randint(1, 2)
    (folder / "labels.csv").write_bytes(damaged(draw, table))
    allowed(lambda: open_dataset(folder, split=draw.choice((None, "test"))))
    shutil.rmtree(folder)


ATTACKS: dict[str, tuple[int, Callable[[Kit, random.Random], None]]] = {
    "image": (40, attack_image),
    "manifest": (17, attack_manifest),
    "lines": (20, attack_lines),
    "certificate": (5, attack_certificate),
    "prompt": (15, attack_prompt),
    "table": (3, attack_table),
}
"""Share in percent, and the attack."""


def allowed(action: Callable[[], object]) -> None:
    """Do it; an error of ours in one line is as good as success."""
    try:
        action()
    except CertimedError as error:
        text = str(error)
        if "\n" in text or "Traceback" in text or not text:
            raise AssertionError(f"not one line: {text!r}") from error


def attack(kit: Kit, seed: int) -> str:
    """Input number ``seed``; returns its kind. AssertionError if it takes longer than :data:`SECONDS`."""
    draw = random.Random(seed)
    (name,) = draw.choices(list(ATTACKS), [share for share, _ in ATTACKS.values()])
    begin = time.process_time()
    ATTACKS[name][1](kit, draw)
    spent = time.process_time() - begin
    assert spent < SECONDS, f"input {seed} ({name}) took {spent:.1f} s"
    return name


class Writes:
    """Notices every file opened for writing, made, moved or removed outside one folder, anywhere in the process."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._heard)

    @contextmanager
    def only_in(self, folder: Path) -> Iterator[None]:
        """Listen for a while; AssertionError at the end if something was written elsewhere."""
        self.inside, self.outside = folder.resolve(), []
        try:
            yield
        finally:
            self.inside = None
        assert not self.outside, self.outside

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                return
            paths = [path]
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod"):
            if arguments[-1] != -1 and event != "os.truncate":
                return  # relative to an open folder, as rmtree does in the attacks themselves
            paths = [arguments[0]]
        elif event in ("os.rename", "os.link", "os.symlink"):
            paths = list(arguments[:2])
        else:
            return
        for path in paths:
            if isinstance(path, int) or path is None:
                continue
            place = Path(os.path.abspath(os.fsdecode(path)))
            known = place == Path(os.devnull) or "__pycache__" in place.parts
            if not known and self.inside not in place.parents and place != self.inside:
                self.outside.append(f"{event} {place}")
