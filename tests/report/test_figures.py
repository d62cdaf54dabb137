"""Figures and tables of runs: exact sizes, embedded fonts, equal bytes, and curves that claim no more than proved."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_runs import class_images, class_run, mask_images, mask_run
from toys import mask_certificate

from certimed import load_run
from certimed.errors import InputError
from certimed.report.curves import curve_figure
from certimed.report.figures import draw_curves, draw_images, draw_record, write_table
from certimed.report.journal import save, width_in_mm
from certimed.report.notes import native_note
from certimed.report.panels import MaskExample, mask_figure
from certimed.report.series import panels, series
from certimed.runs import RunFolder, data_section
from certimed.runs.images import Images

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of labels, of two sigmas, and one of masks; one image each cannot be read."""
    base = tmp_path_factory.mktemp("figures")
    class_images(base / "images", 8, broken=6)
    for name, sigma in (("a", 0.25), ("b", 0.5)):
        class_run(base / "images", base / name, n=200, sigma=sigma)
    mask_run(mask_images(base / "scans", 4), base / "m")
    return base


def drawn(axis: Any, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    line = axis.lines[number]
    assert line.get_drawstyle() == "steps-pre"  # between x[i-1] and x[i] the value drawn is y[i]
    xs, ys = (np.asarray(values, dtype=float) for values in line.get_data())
    return xs, ys


def test_the_drawn_curve_is_never_above_the_exact_one(place: Path) -> None:
    (one,) = series([place / "a"])
    xs, ys = drawn(curve_figure({"a": {"x": one}}).axes[0])
    right = [c.radius for c, label in zip(one.certificates, one.labels or ()) if c.prediction == label]
    for low, high, value in zip(xs, xs[1:], ys[1:]):
        assert value == pytest.approx(sum(r > high for r in right) / 8)  # of 8 images one failed
        assert value <= sum(r > (low + high) / 2 for r in right) / 8


def test_the_share_of_pixels_is_that_of_the_maps_with_0_for_a_failed_image(place: Path) -> None:
    one, _ = series([place / "m"])
    xs, ys = drawn(curve_figure({"a": {"x": one}}).axes[0])
    maps = [certificate.radius_map() for certificate in one.certificates]
    for x, y in zip(xs, ys):
        assert y == pytest.approx(sum(np.mean(found > x) for found in maps) / 4)


def test_unlabelled_images_are_said(place: Path, tmp_path: Path) -> None:
    (place / "flat").mkdir(exist_ok=True)
    for path in (place / "images" / "dark").glob("*1.png"):
        (place / "flat" / path.name).write_bytes(path.read_bytes())
    (place / "flat" / "x.png").write_bytes((place / "images" / "dark" / "00000.png").read_bytes())
    class_run(place / "flat", tmp_path / "flat")
    figure = curve_figure(panels(series([tmp_path / "flat"]), "sigma"))
    assert figure.axes[0].get_ylabel() == "share of images certified"


def test_series_are_named_by_what_tells_them_apart(place: Path) -> None:
    found = series([place / "a", place / "b"])
    assert {title: list(own) for title, own in panels(found, "sigma").items()} == {
        "sigma = 0.25": ["plain"],
        "sigma = 0.5": ["plain"],
    }
    assert {title: list(own) for title, own in panels(found, "method").items()} == {
        "plain": ["sigma = 0.25", "sigma = 0.5"]
    }
    with pytest.raises(InputError, match="panels by 'colour'"):
        panels(found, "colour")


def test_two_runs_whose_methods_have_one_name_are_told_apart(place: Path, tmp_path: Path) -> None:
    class_run(place / "images", tmp_path / "other" / "a", seed=9)
    found = series([place / "a", tmp_path / "other" / "a"])
    names = list(panels(found, "sigma")["sigma = 0.25"])
    assert len(set(names)) == 2 and all(name.endswith("/a") for name in names)
    write_table([place / "a", tmp_path / "other" / "a"], tmp_path / "a.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert {row["method"] for row in rows} == {f"{name}: plain" for name in names}


def test_a_method_stands_for_all_its_taus(place: Path) -> None:
    assert [one.label for one in series([place / "m"])] == ["plain, tau 0.6", "plain, tau 0.75"]
    assert [one.label for one in series([place / "m"], ["plain"])] == ["plain, tau 0.6", "plain, tau 0.75"]
    (one,) = series([place / "m"], ["plain, tau 0.75"])
    assert one.first.tau == 0.75 and len(one.certificates) == 3
    assert [c.item for c in one.certificates[1:]] == ["1.png", "2.png"]


def test_radii_at_native_resolution_are_those_of_the_certificates(place: Path) -> None:
    (one,), (native,) = series([place / "a"]), series([place / "a"], native=True)
    assert [c.radius for c in native.certificates] == [c.native_radius for c in one.certificates]
    assert (one.space, native.space) == ("model input", "native")
    # On the grid a native radius is less than radius / norm: it pays for rounding, and the note says so.
    carried = [(c.native.radius * c.native.norm, c.real_radius, c.radius) for c in one.certificates if not c.abstained]
    assert carried and all(back <= real < radius for back, real, radius in carried)
    assert "less than its radii by the rounding" in native_note(one)
    shape, own = series([place / "m"], native=True)[1], series([place / "m"])[1]
    for certificate, profile in zip(own.certificates, shape.profiles):
        real = certificate.about.placement.real_radius
        distinct = np.unique(certificate.radius_map())
        assert profile.radii.tolist() == [real(radius) for radius in distinct[distinct > 0].tolist()]


@pytest.mark.parametrize(("ending", "magic"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_the_same_figure_is_the_same_bytes(place: Path, tmp_path: Path, ending: str, magic: bytes) -> None:
    made = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{ending}"
        draw_curves([place / "a", place / "b"], path, by="method", width="single")
        made.append(path.read_bytes())
    assert made[0] == made[1] and made[0].startswith(magic)
    if ending == "png":
        with Image.open(tmp_path / "a.png") as image:
            assert image.width == pytest.approx(88 / 25.4 * 600, abs=1)
    if ending == "pdf":
        assert b"/Subtype /Type0" in made[0] and b"/FontFile2" in made[0]  # type 42: TrueType, embedded
        assert b"/Subtype /Type3" not in made[0] and b"CreationDate" not in made[0]
        width = float(made[0].split(b"/MediaBox [ 0 0 ")[1].split()[0])
        assert width == pytest.approx(88 / 25.4 * 72, abs=0.1)
    if ending == "svg":
        assert b"<text" not in made[0] and b"<dc:date" not in made[0]


def test_the_users_own_settings_change_nothing(place: Path, tmp_path: Path) -> None:
    import matplotlib

    draw_curves([place / "a"], tmp_path / "a.pdf")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "pdf.fonttype": 3}):
        draw_curves([place / "a"], tmp_path / "b.pdf")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_tables_as_files(place: Path, tmp_path: Path) -> None:
    write_table([place / "a", place / "b"], tmp_path / "a.tex", caption="A & B", label="tab:a")
    latex = (tmp_path / "a.tex").read_text()
    assert r"\caption{A \& B}" in latex and r"\toprule" in latex and "0.25 & plain" in latex and "0.5 & plain" in latex
    write_table([place / "a", place / "b"], tmp_path / "a.csv", radii=[0, 0.1])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [row["radius"] for row in rows] == ["0.0", "0.1"] * 2 and {row["failed"] for row in rows} == {"1"}
    write_table([place / "m"], tmp_path / "m.tex")
    assert "guaranteed Dice" in (tmp_path / "m.tex").read_text()


def test_images_are_those_that_were_asked_for(place: Path, tmp_path: Path) -> None:
    draw_images(Images(place / "a"), tmp_path / "a.png", items=["dark/00000.png", "light/00003.png"])
    draw_images(Images(place / "m"), tmp_path / "m.png", first=2)
    assert min((tmp_path / name).stat().st_size for name in ("a.png", "m.png")) > 1000


def test_a_record_is_drawn_while_its_run_goes_on(place: Path, tmp_path: Path) -> None:
    job = load_run(place / "m").spec.load(allow_code=True)
    record = job.record(0)
    assert [path.name for path in draw_record(job, record, tmp_path / "pictures")] == [
        "000-sigma-0.25-tau-0.6.png",
        "000-sigma-0.25-tau-0.75.png",
    ]


def test_mask_panels_have_a_column_for_everything(tmp_path: Path) -> None:
    certificate = mask_certificate((24, 24))
    pixels = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    methods, beside = {"plain": certificate, "denoised": certificate}, {"one noisy copy": pixels}
    truth = np.zeros((24, 24), dtype=np.int64)
    shown = [MaskExample(pixels, truth, methods, beside), MaskExample(pixels, None, methods, beside)]
    figure = mask_figure(shown, ("background", "a_b $x$", "c"), width=180)
    titles = [axis.get_title() for axis in figure.axes[:7]]
    assert titles[:3] == ["image", "one noisy copy", "truth"]
    assert titles[4] == "plain: radius" and "certified" in titles[5]
    save(figure, tmp_path / "a.png")
    with pytest.raises(InputError, match="nothing to draw"):
        mask_figure([], ("a", "b"))


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda run: draw_curves([run], "a.gif"), "must end in .pdf, .svg, .png"),
        (lambda run: draw_curves([run], "a.pdf", width="wide"), "width 'wide' must be single"),
        (lambda run: draw_curves([run], "a.pdf", width="9999"), "fits no page"),
        (lambda run: draw_curves([run], "a.pdf", ["magic"]), "has no method 'magic'"),
        (lambda run: draw_curves([run, run], "a.pdf"), "named twice"),
        (lambda run: draw_curves([run, run.parent / "m"], "a.pdf"), "show runs of one kind together"),
        (lambda run: draw_curves([run], "nowhere/a.pdf"), "cannot be written"),
        (lambda run: write_table([run], "nowhere/a.tex"), "cannot be written"),
        (lambda run: write_table([run], "a.docx"), "must end in .tex or .csv"),
        (lambda run: write_table([run.parent / "m"], "a.tex", native=True), "are of tables of labels"),
        (lambda run: draw_images(Images(run), "a.pdf", items=["other.png"]), "no certificate of an image 'other.png'"),
        (lambda run: draw_images(Images(run, Path("nowhere")), "a.pdf"), "cannot be shown"),
        (lambda run: draw_curves([Path("nowhere")], "a.pdf"), "is not a run folder"),
    ],
)
def test_refusals_are_one_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[[Path], None], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        refused(place / "a")
    assert said in str(caught.value)
    assert not list(tmp_path.glob("a.*"))


def test_widths() -> None:
    assert (width_in_mm("single"), width_in_mm("double"), width_in_mm("120")) == (88.0, 180.0, 120.0)
    with pytest.raises(InputError):
        width_in_mm("nan")


def test_a_loaded_run_shows_itself(place: Path, tmp_path: Path) -> None:
    run = load_run(place / "a")
    page = run._repr_html_()
    assert "<th>r=0.1</th>" in page and "7 images certified, 1 failed" in page
    figure = run.plot(by="method", width="single")
    assert figure.axes[0].get_title() == "plain" and figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    job = run.spec.load(allow_code=True)
    RunFolder.create(tmp_path / "empty<b>", job.manifest(data_section(job.dataset))).close()
    begun = load_run(tmp_path / "empty<b>")._repr_html_()
    assert "no certificate" in begun and "<b>" not in begun
    with pytest.raises(InputError, match="no certificate"):
        load_run(tmp_path / "empty<b>").plot()


def test_a_notebooks_card_of_masks_says_what_is_guaranteed(place: Path) -> None:
    card = load_run(place / "m")._repr_html_()
    assert "<th>guaranteed Dice</th>" in card and "fails with probability at most 0.0005" in card
