"""DICOM objects of a run: on the source's frames, read back with equal content, and no name where none belongs."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import write, write_series
from tiny_runs import full_run, mask_spec
from toys import mask_certificate

from certimed import DataSpec, load_run
from certimed.data.images import ReadOptions
from certimed.errors import InputError
from certimed.exports.dicom_codes import SCHEME, private, unit
from certimed.exports.dicom_pm import write_pm
from certimed.exports.dicom_seg import segment_numbers, write_seg
from certimed.exports.dicom_sr import LOWER, MEDIAN, UPPER, write_sr
from certimed.exports.each import Subject
from certimed.exports.formats import export
from certimed.exports.narrowing import decimal_string
from certimed.exports.options import ExportOptions
from certimed.runs import MeasureTarget
from certimed.runs.images import Images

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

SECRETS = {
    "PatientName": "Müßiggang^Zacharias",
    "PatientID": "GEHEIM-4711",
    "PatientBirthDate": "19120623",
    "PatientSex": "M",
    "AccessionNumber": "ACC-9922",
    "ReferringPhysicianName": "Holmes^Sherlock",
    "InstitutionName": "Spital am Berg",
    "StudyDescription": "Verdacht auf Verdacht",
    "PatientComments": "kennt den Bürgermeister",
    "OtherPatientIDs": "PASSPORT-31337",
}
CT = "1.2.840.10008.5.1.4.1.1.2"


def header(number: int = 1, **more: Any) -> dict[str, Any]:
    """What a CT slice of a study says."""
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": CT,
        "SOPInstanceUID": f"1.2.3.4.{number}",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.2",
        "FrameOfReferenceUID": "1.2.3.3",
        "StudyID": "7",
        "StudyDate": "20200102",
        "StudyTime": "101112",
        "Modality": "CT",
        "InstanceNumber": number,
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2,
        "ImagePositionPatient": [-10, -20, 5 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "WindowCenter": 128,
        "WindowWidth": 256,
    } | SECRETS | more  # fmt: skip


def scans(folder: Path, count: int = 2, size: tuple[int, int] = (8, 10), **more: Any) -> Path:
    """CT slices with a bright disc, every header full of what is nobody's business."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(1, count + 1):
        disc = (rows - size[0] / 2) ** 2 + (columns - size[1] / 2) ** 2 < 5 + number
        pixels = np.where(disc, 220, 30).astype(np.uint16)
        write(folder / f"{number}.dcm", pixels, **header(number, **more))
    return folder


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    base = tmp_path_factory.mktemp("dicom")
    spec = mask_spec(scans(base / "scans"))
    return full_run(spec, base / "run")


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    base = tmp_path_factory.mktemp("sizes")
    target = MeasureTarget(("area:class 1", "centroid_x:class 1"), (0.05, 0.1))
    return full_run(mask_spec(scans(base / "scans", 1), target=target, n0=None), base / "run")


def subject(folder: Any, image: Any, certificate: Any, **options: Any) -> Subject:
    files = tuple(map(Path, image.geometry.files))
    return Subject(folder, folder.digest(), certificate.item, certificate, image, files, ExportOptions(**options))


def judged(path: Path) -> list[str]:
    """What dciodvfy calls an error; skips the test where it is not installed."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


def test_segments_are_what_was_certified_pixel_for_pixel(masks, tmp_path) -> None:
    done = export(masks.folder, tmp_path / "out", "dicom-seg")
    assert len(done.files) == 2 and not done.notes
    for path, record in zip(done.files, masks.records(), strict=True):
        certificate = record.certificates["plain"]
        read = hd.seg.segread(path)
        numbers = read.get_pixels_by_source_instance([read.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
                                                      .ReferencedSOPInstanceUID], combine_segments=True)  # fmt: skip
        assert np.array_equal(numbers[0], segment_numbers(certificate))
        again = pydicom.dcmread(path)
        assert [one.SegmentLabel for one in again.SegmentSequence] == [
            "class 0", "class 1", "abstained: no class is proved",
        ]  # fmt: skip
        algorithm = again.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmVersion == masks.folder.manifest["model"]["identity"]
        assert f"run={masks.folder.digest()}" in algorithm.AlgorithmParameters
        source = pydicom.dcmread(masks.spec.data.path + "/" + record.item)
        assert (again.PatientName, again.PatientID, again.StudyInstanceUID, again.FrameOfReferenceUID) == (
            source.PatientName, source.PatientID, source.StudyInstanceUID, source.FrameOfReferenceUID,
        )  # fmt: skip
        shared = again.SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].PixelSpacing == source.PixelSpacing
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == source.ImageOrientationPatient


def test_the_same_run_gives_the_same_bytes_and_another_export_other_uids(masks, tmp_path) -> None:
    first = export(masks.folder, tmp_path / "a", "dicom-seg").files
    assert [one.read_bytes() for one in first] == [
        one.read_bytes() for one in export(masks.folder, tmp_path / "b", "dicom-seg").files
    ]
    nameless = export(masks.folder, tmp_path / "c", "dicom-seg", ExportOptions(anonymise=True)).files
    uids = {pydicom.dcmread(path).SOPInstanceUID for path in (*first, *nameless)}
    assert len(uids) == 4 and all(uid.startswith("2.25.") and uid.is_valid for uid in uids)


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-pm", "dicom-sr"])
def test_patient_data_are_only_where_they_were_asked_for(masks, sizes, tmp_path, kind) -> None:
    run = sizes if kind == "dicom-sr" else masks
    words = [text.encode(code) for text in SECRETS.values() for code in ("utf-8", "latin-1")]
    words = [part for text in words for part in text.split(b"^") if len(part) > 3] + [b"20200102", b"101112"]
    for path in (one for one in run.folder.path.rglob("*") if one.is_file()):
        assert not [word for word in words if word in path.read_bytes()], path
    (named, *_) = export(run.folder, tmp_path / "named", kind).files
    assert b"GEHEIM-4711" in named.read_bytes() and "Müßiggang".encode() in named.read_bytes()
    (bare, *_) = export(run.folder, tmp_path / "bare", kind, ExportOptions(anonymise=True)).files
    assert not [word for word in words if word in bare.read_bytes()]
    read = pydicom.dcmread(bare)
    assert read.PatientIdentityRemoved == "YES" and read.PatientID == "" and read.StudyInstanceUID == "1.2.3.1"


@pytest.mark.parametrize("anonymise", [False, True])
@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-pm", "dicom-sr"])
def test_dciodvfy_finds_no_errors(masks, sizes, tmp_path, kind, anonymise) -> None:
    run = sizes if kind == "dicom-sr" else masks
    for path in export(run.folder, tmp_path / "out", kind, ExportOptions(anonymise=anonymise)).files:
        assert judged(path) == []


def test_radii_are_rounded_down_and_lie_on_the_source(masks, tmp_path) -> None:
    done = export(masks.folder, tmp_path / "out", "dicom-pm")
    for path, record in zip(done.files, masks.records(), strict=True):
        radii = record.certificates["plain"].radius_map()
        stored = hd.imread(path).get_volume().array[0]
        assert (stored <= radii).all() and np.allclose(stored, radii, rtol=1e-6)
        plain = np.frombuffer(pydicom.dcmread(path).FloatPixelData, np.float32).reshape(radii.shape)
        assert np.array_equal(plain, stored.astype(np.float32)) and (plain.astype(np.float64) <= radii).all()


def test_a_report_holds_the_certified_values_rounded_outwards(sizes, tmp_path) -> None:
    done = export(sizes.folder, tmp_path / "out", "dicom-sr")
    (record,) = sizes.records()
    certificate = record.certificates["plain, measured"]
    check_report(done.files[0], certificate)
    # An end that is not proved is no number.
    ends = [replace(one, upper=(one.upper[0], math.inf)) for one in certificate.claim.intervals]
    unproved = replace(certificate, claim=replace(certificate.claim, intervals=tuple(ends)))
    image = Images(sizes.folder.path).load([record.item])[0]
    check_report(write_sr(subject(sizes.folder, image, unproved), tmp_path / "b")[0], unproved)


def check_report(path: Path, certificate: Any) -> None:
    """Every number of the report against the certificate's, read by highdicom and by pydicom."""
    groups = hd.sr.srread(path).content.get_image_measurement_groups()
    assert len(groups) == len(certificate.radii) == 2
    for index, group in enumerate(groups):
        found = {(one.name.meaning, one.derivation and one.derivation.value): one for one in group.get_measurements()}
        assert 0 < found["Certified L2 radius, values in [0, 1]", None].value <= certificate.radii[index]
        assert found["Failure probability of the certificate", None].value >= certificate.alpha
        open_ends = 0
        for one in certificate.claim.intervals:
            assert found[one.name, MEDIAN[0]].value == pytest.approx(one.median, rel=1e-12)
            for code, end, outwards in (
                (LOWER[0], one.lower[index], np.less_equal),
                (UPPER[0], one.upper[index], np.greater_equal),
            ):
                assert ((one.name, code) in found) == math.isfinite(end)
                if math.isfinite(end):
                    value = found[one.name, code].value
                    assert outwards(value, end) and value == pytest.approx(end, rel=1e-12)
                open_ends += math.isinf(end)
        assert [one.value.meaning for one in group.get_qualitative_evaluations()] == ["not proved"] * open_ends
    items = list(pydicom.dcmread(path).iterall())
    numbers, floats = (
        [one.value for one in items if one.keyword == word] for word in ("NumericValue", "FloatingPointValue")
    )
    assert list(map(float, numbers)) == floats and len(numbers) > 10


@pytest.mark.parametrize("value", [1 / 3, 2 / 3, 1e-7 / 3, 123456.7890123456, 5e-324, 0.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_decimal_strings_never_lie_inside(value: float, sign: int) -> None:
    below, above = decimal_string(sign * value, "lower"), decimal_string(sign * value, "upper")
    assert below <= sign * value <= above
    assert all(len(str(pydicom.valuerep.DS(one, auto_format=True))) <= 16 for one in (below, above))
    assert float(pydicom.valuerep.DS(below, auto_format=True)) == below


def test_codes_of_the_users_own(masks, tmp_path) -> None:
    codes = tmp_path / "codes.json"
    terms = {"category": ["49755003", "SCT", "Morphologically Abnormal Structure"], "type": ["4147007", "SCT", "Mass"]}
    codes.write_text(json.dumps({"classes": {"class 1": terms}}))
    (path, _) = export(masks.folder, tmp_path / "out", "dicom-seg", ExportOptions(codes=codes)).files
    own, lesion, _ = pydicom.dcmread(path).SegmentSequence
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodeValue == "4147007"
    assert own.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == SCHEME
    for text, said in (
        ('{"classes": {"class 9": {}}}', "class 9"), ('{"class": {}}', "JSON object with any of"),
        ('{"classes": {"class 1": {"type": ["a", "b"]}}}', "three texts"), ("no", "JSON"),
    ):  # fmt: skip
        codes.write_text(text)
        with pytest.raises(InputError, match=said):
            export(masks.folder, tmp_path / "out2", "dicom-seg", ExportOptions(codes=codes))


def test_private_codes_say_the_same_everywhere() -> None:
    assert private("heart") == private("heart") != private("lung") and len(private("x")[0]) <= 16
    assert unit("ml")[:2] == ("ml", "UCUM") and unit("pixels")[0] == "{pixels}" and unit("")[0] == "1"


ORIENTATIONS = {
    "axial": np.array([[-0.8, 0, 0, 40], [0, -0.6, 0, 30], [0, 0, 2.5, -9], [0, 0, 0, 1]]),
    "coronal": np.array([[-0.8, 0, 0, 40], [0, 0, 3, 30], [0, -0.7, 0, 9], [0, 0, 0, 1]]),
    "oblique": np.array([[-0.8 * 0.96, 0, 0.28 * 2, 4], [0, -0.6, 0, 3], [0.28 * 0.8, 0, 0.96 * 2, 1], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("turned", [None, "RAS", "SPL"])
def test_a_volume_lands_on_its_slices_however_it_was_turned(masks, tmp_path, name, turned) -> None:
    from certimed.data.series import read_series

    affine = ORIENTATIONS[name]
    values = np.random.default_rng(1).integers(0, 200, (7, 6, 5))
    folder = write_series(tmp_path / "series", values, affine, order=[3, 0, 4, 1, 2])
    image = read_series(folder, ReadOptions(volume=True, orientation=turned))
    certificate = mask_certificate(image.pixels.shape[1:], item="case")
    (path,) = write_seg([subject(masks.folder, image, certificate)], tmp_path / "case", [])
    read = hd.seg.segread(path).get_volume(combine_segments=True)
    lps = np.diag([-1, -1, 1, 1]) @ image.geometry.matrix
    wanted = hd.Volume(segment_numbers(certificate), lps, "PATIENT")
    assert np.array_equal(read.match_geometry(wanted).array, wanted.array)
    (path,) = write_pm([subject(masks.folder, image, certificate)], tmp_path / "case", [])
    radii = hd.imread(path).get_volume().match_geometry(wanted).array
    assert (radii <= certificate.radius_map()).all() and np.allclose(radii, certificate.radius_map(), rtol=1e-6)
    assert judged(path) == []
    references = pydicom.dcmread(path).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(references) == 5


def test_nifti_lies_where_the_series_does(masks, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel")
    from certimed.exports.nifti import write_layers

    done = export(masks.folder, tmp_path / "out", "nifti")
    assert len(done.files) == 8
    for record in masks.records():
        certificate = record.certificates["plain"]
        place = tmp_path / "out" / record.item
        read = nibabel.load(place / "plain.certified.nii.gz")
        assert np.array_equal(np.asarray(read.dataobj)[..., 0], certificate.certified)
        # Index (row, column): down is posterior (-y), across is left (-x) in RAS+.
        assert np.allclose(read.affine[:3, :2], [[0, -0.75], [-0.5, 0], [0, 0]])
        assert np.array_equal(
            np.asarray(nibabel.load(place / "plain.abstained.nii.gz").dataobj)[..., 0], ~certificate.certified
        )
    assert write_layers.__doc__


def test_what_cannot_be_written_is_said_in_a_sentence(masks, sizes, tmp_path) -> None:
    with pytest.raises(InputError, match="no certificates of measurements"):
        export(masks.folder, tmp_path / "a", "dicom-sr")
    with pytest.raises(InputError, match="codes is of the formats dicom-seg, dicom-pm, dicom-sr, and not of nifti"):
        export(masks.folder, tmp_path / "a", "nifti", ExportOptions(codes=Path("x")))
    with pytest.raises(InputError, match="has no image 'nobody'"):
        export(masks.folder, tmp_path / "a", "png", ExportOptions(items=("nobody",)))
    with pytest.raises(InputError, match="fills a folder"):
        (tmp_path / "file").touch()
        export(masks.folder, tmp_path / "file", "png")
    with pytest.raises(InputError, match="--data"):
        export(masks.folder, tmp_path / "a", "dicom-seg", ExportOptions(data=tmp_path))


def test_images_without_a_position_or_a_study(tmp_path) -> None:
    gone = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"))
    folder = scans(tmp_path / "scans", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.1", Modality="CR")
    file = pydicom.dcmread(folder / "1.dcm")
    for name in gone:
        del file[name]
    file.save_as(folder / "1.dcm")
    run = full_run(mask_spec(folder), tmp_path / "run")
    (path,) = export(run.folder, tmp_path / "out", "dicom-seg").files
    (record,) = run.records()
    assert np.array_equal(hd.seg.segread(path).get_frame(1) > 0, segment_numbers(record.certificates["plain"]) == 1)
    assert judged(path) == []
    with pytest.raises(InputError, match="no frame of reference"):
        export(run.folder, tmp_path / "out", "dicom-pm")
    del file["StudyInstanceUID"]
    file.save_as(folder / "1.dcm")
    with pytest.raises(InputError, match="no StudyInstanceUID"):
        export(load_run(tmp_path / "run").folder, tmp_path / "out", "dicom-seg")


def test_a_smaller_certified_grid_is_carried_to_the_source(masks, tmp_path) -> None:
    """Each source pixel is in the segment of the certified pixel it lies in, and outside of a crop in none."""
    from certimed.certificates import NativeRadius
    from certimed.data.series import read_series
    from certimed.operators import Geometry
    from certimed.operators.geometry import SAME, Axis

    values = np.random.default_rng(1).integers(0, 200, (8, 12, 2))
    folder = write_series(tmp_path / "series", values, ORIENTATIONS["axial"])
    from certimed.data.dicom import read_dicom

    image = read_dicom(sorted(folder.iterdir())[0], ReadOptions())
    assert image.pixels.shape == (1, 12, 8)
    certificate = mask_certificate((4, 4), item="case", shape=(1, 4, 4))
    geometry = Geometry(SAME, 1, (Axis(12, (0, 0), 6, (-1, -1)), Axis(8, (0, 0), 4, (0, 0))))
    certificate = replace(certificate, native=NativeRadius.of(certificate.real_radius, geometry))
    (path,) = write_seg([subject(masks.folder, image, certificate)], tmp_path / "case", [])
    found = hd.seg.segread(path).get_volume(combine_segments=True).array[0]
    wanted = np.kron(segment_numbers(certificate), np.ones((2, 2), int))
    assert np.array_equal(found[2:-2], wanted) and not found[:2].any() and not found[-2:].any()
    assert read_series(folder, ReadOptions(volume=True)).pixels.shape == (1, 8, 12, 2)


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    """A series cut into slices, two of the five left out; disc in every one."""
    base = tmp_path_factory.mktemp("sliced")
    rows, columns, planes = np.mgrid[:8, :10, :5]
    values = np.where((rows - 4) ** 2 + (columns - 5) ** 2 < 6 + planes, 220, 30)
    write_series(base / "scans" / "case", values, ORIENTATIONS["axial"], order=[3, 0, 4, 1, 2])
    (base / "scans").mkdir(exist_ok=True)
    data = DataSpec(str(base / "scans"), slices="1:4", reading=ReadOptions(window=(0, 512)))
    spec = replace(mask_spec(base / "scans"), data=data)
    return full_run(spec, base / "run")


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-pm"])
def test_slices_of_a_series_go_into_one_object(sliced, tmp_path, kind) -> None:
    (path,) = export(sliced.folder, tmp_path / "out", kind).files
    assert path.parent.name == "case" and judged(path) == []
    read = pydicom.dcmread(path)
    records = sorted(sliced.records(), key=lambda one: one.item)
    assert len(read.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == len(records) == 3
    seg = kind == "dicom-seg"
    volume = hd.seg.segread(path).get_volume(combine_segments=True) if seg else hd.imread(path).get_volume()
    certificates = [record.certificates["plain"] for record in records]
    wanted = [segment_numbers(one) if seg else one.radius_map() for one in certificates]
    order = sorted(range(3), key=lambda place: volume.map_indices_to_reference(np.array([[place, 0, 0]]))[0, 2])
    for place, values in zip(order, wanted, strict=True):
        assert np.allclose(volume.array[place], values, rtol=1e-6) and (volume.array[place] <= values).all()
    if seg:
        (algorithm,) = read.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        assert {"slices=3", "alpha_of_all_slices=0.003"} <= set(algorithm.AlgorithmParameters.split(","))
