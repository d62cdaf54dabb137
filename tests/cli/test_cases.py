"""Real files and runs that once went wrong, from the command line: each case has the outcome written beside it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helper import Said, call
from toys import shared

from certimed.cli.tables import print_table
from certimed.data import read_image
from certimed.denoising import load_denoiser
from certimed.report.kind_tables import table
from certimed.report.series import series
from certimed.segmenters import load_segmenter

SEGMENT = (
    "certify",
    "masks",
    "--model",
    "python:unet:make",
    "--allow-code",
    "--sigma",
    "0.1",
    "--n",
    "70",
    "--n0",
    "2",
)
FEW = ("--sigma", "0.5", "--n", "30", "--n0", "5", "--limit", "4")


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a case, which is the current folder; skipped by name where it is not there."""
    place = Path(shutil.copytree(shared("cases", request.param), tmp_path / "case"))
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(place)])
    yield place
    sys.modules.pop("unet", None)


def of(name: str) -> Any:
    return pytest.mark.parametrize("case", [name], indirect=True)


def one_sentence(said: Said) -> str:
    assert said.code == 2 and said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    return said.err


@of("cli-rounds-bounds-up")
def test_the_terminal_rounds_bounds_outwards(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean guaranteed Dice of any run, as the case says; its exact value is in the records."""
    from report_runs import mask_images, mask_run

    mask_run(mask_images(tmp_path / "scans", 3), tmp_path / "run")
    (one, *_) = series([tmp_path / "run"])
    print_table(table([one]))
    said = capsys.readouterr().out.split()
    found = one.dice()
    assert found is not None
    for metric, outwards in (("guaranteed Dice", np.floor), ("best-case Dice", np.ceil), ("guaranteed IoU", np.floor)):
        exact = round(1000 * found["foreground mean", metric].mean, 9)
        assert f"{outwards(exact) / 1000:.3f}" in said, metric


@of("denoiser-missing-weights")
def test_a_denoiser_that_lacks_weights_is_refused_and_a_prefix_taken_off(case: Path) -> None:
    words = (*SEGMENT, "--methods", "denoised", "--data", "xrays")
    text = one_sentence(call(*words, "--denoiser", "denoiser/", "--out", "run1", code=2))
    assert "1 missing (mid_block.resnets.0.conv1.weight)" in text
    said = call(*words, "--denoiser", "denoiser_prefix/", "--out", "run2")
    assert "the prefix 'module.' was taken off" in said.text
    assert json.loads(Path("run2", "run.json").read_text())["denoiser"] == load_denoiser("denoiser_prefix/").identity


@of("dicomdir-beside-classes")
def test_a_directory_of_media_is_no_image_and_is_counted(case: Path) -> None:
    said = call("certify", "classes", "--model", "demo", "--data", "export", *FEW, "--out", "run")
    assert "2 certified, 0 failed" in said.text
    assert "1 other file in export left out" in said.text
    assert json.loads(Path("run", "run.json").read_text())["data"]["ignored_files"] == 1


@of("flat-dicom-certified")
def test_flat_images_are_warned_of_on_the_screen_in_a_rehearsal_and_in_the_run(case: Path) -> None:
    words = ("certify", "classes", "--model", "demo", "--data", ".", "--classes", "a,b", *FEW)
    for said in (call(*words, "--out", "../run"), call(*words, "--dry-run")):
        assert "1 of 4 images is constant (e.g. b/allzero.dcm)" in said.text
        assert "use less than 5 % of [0, 1]" in said.text and "set --window" in said.text
        assert "intensities: " in said.text
    call("report", "../run", "--out", "../page.html")
    assert "use less than 5 % of [0, 1]" in Path("../page.html").read_text()
    said = call(*words, "--window", "40,400", "--out", "../windowed")
    assert "no window in the header" not in said.text


@of("monai-odd-size")
def test_odd_sizes_are_padded_and_a_volume_s_network_is_refused_at_once(case: Path) -> None:
    words = ("certify", "masks", "--output", "logits", "--data", "vol", "--sigma", "0.1", "--n", "70", "--n0", "2")
    assert "1 certified, 0 failed" in call(*words, "--model", "monai:bundle2d", "--out", "run").text
    said = call(*words, "--model", "monai:bundle3d", "--out", "run3", code=None)
    assert said.code == 2 and "3-D" in one_sentence(said)
    assert not Path("run3").exists()


@of("nifti-nan-background")
def test_what_nan_means_is_a_recorded_choice(case: Path) -> None:
    words = ("certify", "classes", "--model", "demo", "--data", "nan_border.nii.gz", *FEW)
    said = call(*words, "--out", "refused", code=3)
    assert "values that are no number" in said.text and "--nan zero or --nan min" in said.text
    for choice in ("zero", "min"):
        assert "1 certified" in call(*words, "--nan", choice, "--out", choice).text
        assert json.loads(Path(choice, "run.json").read_text())["request"]["data"]["reading"]["nan"] == choice
        (line,) = Path(choice, "certificates.jsonl").read_text().splitlines()
        steps = {one["step"]: one for one in json.loads(line)["intensity"]["steps"]}
        assert steps["nan"]["policy"] == choice and steps["nan"]["pixels"] == 72


@of("resume-ignores-options")
def test_a_resumed_run_refuses_options_that_differ(case: Path) -> None:
    few = ("--sigma", "0.25", "--n", "20", "--n0", "5")
    call("certify", "classes", "--model", "demo", "--data", "images", *few, "--out", "run")
    said = call(
        "certify", "--resume", "run", "--sigma", "0.5", "--n", "50", "--seed", "7", "--out", "elsewhere", code=2
    )
    assert "--out" in one_sentence(said) and not Path("elsewhere").exists()
    said = call("certify", "--resume", "run", "--sigma", "0.5", "--n", "50", code=2)
    assert "--sigma 0.5 differs from the run run, which was started with 0.25" in one_sentence(said)
    assert "--budget fixed:50" in one_sentence(call("certify", "--resume", "run", "--n", "50", code=2))
    assert "--seed 7" in one_sentence(call("certify", "--resume", "run", "--seed", "7", code=2))
    call("certify", "--resume", "run", *few)


@of("smp-lightning-buffers")
def test_buffers_of_a_training_module_are_used(case: Path) -> None:
    exec(compile(Path("make.py").read_text(), "make.py", "exec"), {})
    model = load_segmenter("smp:Unet:mobilenet_v2:model.ckpt", output="binary logit")
    assert any("stored in the checkpoint" in note for note in model.notes)
    assert set(model.normalisation) == {"mean", "std", "channel_order"}


@of("smp-normalisation")
def test_a_network_that_does_not_say_its_normalisation_is_asked_about(case: Path) -> None:
    import segmentation_models_pytorch as smp

    smp.Unet("mobilenet_v2", encoder_weights=None, classes=2).save_pretrained("my_unet")
    assert "normalise" in load_segmenter("smp:my_unet").warnings[0]
    assert not load_segmenter("smp:my_unet", normalise="imagenet").warnings


@of("tiff-planes-and-messages")
def test_planes_become_channels_and_every_codec_is_read(case: Path) -> None:
    ome = read_image("ome.ome.tif")
    assert ome.pixels.shape[0] == 3 and "taken as red, green and blue" in ome.intensity
    for name in ("rgb8_jpeg2000.tif", "rgb8_aperio_jp2000_rgb.tif"):
        assert read_image(name).pixels.shape[0] == 3
    assert read_image("f64_01.tif").pixels.shape[0] == 1


@of("tracebacks")
def test_read_only_folders_and_conditioned_denoisers_are_sentences(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(shared("cases", "denoiser-missing-weights", "xrays"), "xrays")
    said = call(*SEGMENT, "--denoiser", "classcond/", "--data", "xrays", "--out", "run", code=2)
    assert "class-conditioned" in one_sentence(said)
    call(*SEGMENT, "--data", "xrays", "--out", "run")
    opened = Path.open

    def read_only(*_: Any, **__: Any) -> Any:
        raise OSError(30, "Read-only file system")

    def opened_for_reading(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return read_only() if "w" in mode else opened(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", opened_for_reading)
    monkeypatch.setattr(Path, "unlink", read_only)
    assert "Read-only file system" in one_sentence(call("report", "run", "--no-verify", code=2))
    assert "Read-only file system" in one_sentence(call("export", "run", "--out", "a.csv", code=2))
