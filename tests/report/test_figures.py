"""Figures and tables of runs: exact sizes, embedded fonts, equal bytes, and curves that claim no more than proved."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from certimed.report.results import class_series, panels
from PIL import Image
from test_certificates_native import mask_certificate
from tiny_runs import Certify, full_run, manifest, open_images, write_images
from typer.testing import CliRunner

from certimed import load_run
from certimed.classification import certificate_from_counts
from certimed.cli.app import app
from certimed.errors import InputError
from certimed.report.curves import AccuracyCurve, accuracy_figure, share_figure
from certimed.report.journal import save, width_in_mm
from certimed.report.panels import MaskExample, mask_figure
from certimed.runs import RunFolder

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two classification runs, of two sigmas; one image cannot be read."""
    base = tmp_path_factory.mktemp("figures")
    images = write_images(base / "images", 8, broken=(6,))
    for sigma in (0.25, 0.5):
        full_run(images, base / f"sigma-{sigma}", n=200, sigma=sigma)
    return base / "sigma-0.25", base / "sigma-0.5"


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["figure", *map(str, words)])
    return result.exit_code, result.output


def curve(*winners: int, labels: tuple[int, ...] | None = None) -> AccuracyCurve:
    made = [
        certificate_from_counts(
            np.array([200 - k, k]), np.array([200 - k, k]), item=str(k), alpha=1e-3, sigma=0.5, seed=0, shape=(1, 2, 2)
        )
        for k in winners
    ]
    return AccuracyCurve(made, labels)


def test_the_drawn_curve_is_never_above_the_exact_one() -> None:
    one = curve(120, 150, 180, 199, 200, labels=(1, 1, 1, 0, 1))
    figure = accuracy_figure({"a": {"x": one}})
    line = figure.axes[0].lines[0]
    xs, ys = (np.asarray(values, dtype=float) for values in line.get_data())
    assert line.get_drawstyle() == "steps-pre"  # between x[i-1] and x[i] the value drawn is y[i]
    right = [c.radius for c, label in zip(one.certificates, one.labels or ()) if c.prediction == label]
    for low, high, drawn in zip(xs, xs[1:], ys[1:]):
        assert drawn == pytest.approx(sum(r > high for r in right) / 5)
        assert drawn <= sum(r > (low + high) / 2 for r in right) / 5


def test_share_of_pixels_is_that_of_the_maps() -> None:
    maps = [np.array([[0.0, 0.1], [0.2, 0.4]]), np.array([[0.0, 0.0], [0.0, 0.3]])]
    figure = share_figure({"a": {"x": maps}})
    xs, ys = (np.asarray(values, dtype=float) for values in figure.axes[0].lines[0].get_data())
    for x, y in zip(xs, ys):
        assert y == pytest.approx(np.mean([np.mean(one > x) for one in maps]))


def test_failed_images_count_as_wrong_and_unlabelled_ones_are_said(runs: tuple[Path, Path]) -> None:
    (one,) = class_series([runs[0]])
    assert one.failed == 1 and one.summary().images == 8
    figure = accuracy_figure({"a": {"x": curve(190, 200)}})
    assert figure.axes[0].get_ylabel() == "share of images certified"


def test_series_are_named_by_what_tells_them_apart(runs: tuple[Path, Path]) -> None:
    series = class_series(runs)
    assert {title: list(own) for title, own in panels(series, "sigma", id).items()} == {
        "sigma = 0.25": ["none"],
        "sigma = 0.5": ["none"],
    }
    assert {title: list(own) for title, own in panels(series, "method", id).items()} == {
        "none": ["sigma = 0.25", "sigma = 0.5"]
    }
    with pytest.raises(InputError, match="panels by 'colour'"):
        panels(series, "colour", id)


@pytest.mark.parametrize(("ending", "magic"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_the_same_figure_is_the_same_bytes(runs: tuple[Path, Path], tmp_path: Path, ending: str, magic: bytes) -> None:
    made = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{ending}"
        code, text = run("curve", *runs, "--by", "method", "--width", "single", "--out", path)
        assert code == 0, text
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


def test_the_users_own_settings_change_nothing(tmp_path: Path) -> None:
    import matplotlib

    one = curve(190, 200, labels=(1, 1))
    save(accuracy_figure({"a": {"x": one}}), tmp_path / "a.pdf")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "pdf.fonttype": 3}):
        save(accuracy_figure({"a": {"x": one}}), tmp_path / "b.pdf")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_tables(runs: tuple[Path, Path], tmp_path: Path) -> None:
    code, text = run("table", *runs, "--out", tmp_path / "a.tex", "--caption", "A & B", "--label", "tab:a")
    assert code == 0, text
    latex = (tmp_path / "a.tex").read_text()
    assert r"\caption{A \& B}" in latex and r"\toprule" in latex and "0.25 & none" in latex and "0.5 & none" in latex
    assert run("table", *runs, "--radii", "0,0.1", "--out", tmp_path / "a.csv")[0] == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [row["radius"] for row in rows] == ["0.0", "0.1"] * 2 and {row["failed"] for row in rows} == {"1"}


def test_panels_show_the_images_that_were_asked_for(runs: tuple[Path, Path], tmp_path: Path) -> None:
    code, text = run(
        "panels", runs[0], "--item", "dark/00000.png", "--item", "light/00003.png", "--out", tmp_path / "a.png"
    )
    assert code == 0, text
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_mask_panels_have_a_column_for_everything(tmp_path: Path) -> None:
    certificate = mask_certificate()
    pixels = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    methods = {"plain": certificate, "denoised": certificate}
    shown = [MaskExample(pixels, np.zeros((24, 24), dtype=np.int64), methods), MaskExample(pixels, None, methods)]
    figure = mask_figure(shown, ("background", "a_b $x$", "c"), width=180)
    titles = [axis.get_title() for axis in figure.axes[:6]]
    assert titles[:2] == ["image", "truth"] and titles[3] == "plain: radius" and "certified" in titles[4]
    save(figure, tmp_path / "a.png")
    with pytest.raises(InputError, match="nothing to draw"):
        mask_figure([], ("a", "b"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("curve", "RUN", "--out", "a.gif"), "must end in .pdf, .svg, .png"),
        (("curve", "RUN", "--out", "a.pdf", "--width", "wide"), "width 'wide' must be single"),
        (("curve", "RUN", "--out", "a.pdf", "--width", "9999"), "fits no page"),
        (("curve", "RUN", "--out", "a.pdf", "--method", "magic"), "has no method 'magic'"),
        (("curve", "RUN", "RUN", "--out", "a.pdf"), "named twice"),
        (("curve", "RUN", "--out", "a.pdf", "--native"), "at native resolution is not known"),
        (("curve", "RUN", "--out", "nowhere/a.pdf"), "cannot be written"),
        (("table", "RUN", "--out", "a.docx"), "must end in .tex or .csv"),
        (("panels", "RUN", "--out", "a.pdf", "--item", "other.png"), "no certificate of an image 'other.png'"),
        (("panels", "RUN", "--out", "a.pdf", "--data", "nowhere"), "cannot be shown"),
        (("curve", "nowhere", "--out", "a.pdf"), "no run folder"),
    ],
)
def test_refusals_are_one_sentence(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run(*(runs[0] if word == "RUN" else word for word in words))
    assert code == 2 and said in " ".join(text.split()), text
    assert not list(tmp_path.glob("a.*"))


def test_widths() -> None:
    assert (width_in_mm("single"), width_in_mm("double"), width_in_mm("120")) == (88.0, 180.0, 120.0)
    with pytest.raises(InputError):
        width_in_mm("nan")


def test_a_loaded_run_shows_itself(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run_ = load_run(runs[0])
    page = run_._repr_html_()
    assert "certified accuracy at 0.25" in page and "7 images certified, 1 failed" in page
    figure = run_.plot(by="method", width="single")
    assert figure.axes[0].get_title() == "none" and figure._repr_png_().startswith(b"\x89PNG")
    dataset, certify = open_images(write_images(tmp_path / "images", 2)), Certify()
    RunFolder.create(tmp_path / "empty<b>", manifest(dataset, certify)).close()
    begun = load_run(tmp_path / "empty<b>")._repr_html_()
    assert "no certificate" in begun and "<b>" not in begun
    with pytest.raises(InputError, match="no certificate"):
        load_run(tmp_path / "empty<b>").plot()
