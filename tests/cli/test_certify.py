"""``certify classes`` and ``certify masks`` as a person uses them: what they write, say, refuse, and how they end."""

import json
import os
import shutil

import pytest
from cli_helper import CLASSIFIER, MEASURED, SEGMENTER, call, classes, masks, measurements, refused
from tiny_runs import lines, manifest, write_images, write_scans
from toys import shared

from certimed.cli.request import OPTIONS, TASKS
from certimed.runs import RunFolder, RunSpec


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 4)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("scans") / "all", 2)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    classes(images, out)
    return out


@pytest.fixture(scope="module")
def mask_run(scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "masks"
    masks(scans, out)
    return out


@pytest.fixture(scope="module")
def measured_run(scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "measured"
    measurements(scans, out, "--tau", 0.75)
    return out


def test_a_run_says_where_it_is_and_writes_its_summary(whole, images, tmp_path):
    said = classes(images, tmp_path / "run")
    assert f"4 certified, 0 failed; written to {tmp_path / 'run'}" in said.text
    assert RunFolder.open(tmp_path / "run").digest() in said.out
    assert lines(tmp_path / "run") == lines(whole)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["certified"], summary["failed"], summary["exit_status"]) == (4, 0, 0)


def test_json_is_the_summary_and_nothing_else(images, scans, tmp_path):
    for run, said in (
        (tmp_path / "a", classes(images, tmp_path / "a", "--json")),
        (tmp_path / "b", masks(scans, tmp_path / "b", "--json")),
    ):
        assert json.loads(said.out) == json.loads((run / "summary.json").read_text())


def test_failed_images_end_with_code_3_and_stay_in_the_summary(tmp_path):
    images = write_images(tmp_path / "images", 5, broken=(2,))
    said = classes(images, tmp_path / "run", code=3)
    assert "failed dark/00002.png: dark/00002.png cannot be read" in said.err
    assert "4 certified, 1 failed" in said.out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["exit_status"] == 3
    again = call("certify", "--resume", tmp_path / "run", "--allow-code", "--retry-failed", code=3)
    assert again.err.count("failed dark/00002.png") == 1
    assert "failed dark" not in call("certify", "--resume", tmp_path / "run", "--allow-code", code=3).err


def test_a_hopeless_model_stops_the_run_with_one_sentence(tmp_path):
    images = write_images(tmp_path / "images", 12)
    broken = ("--model", "python:tiny_models:broken", "--allow-code")
    said = call("certify", "classes", *broken, "--data", images, "--out", tmp_path / "run", code=2)
    assert "error: the run stopped, as every image fails for one reason: the model returned (8, 5)" in said.text
    assert len(RunFolder.open(tmp_path / "run").status()) == 3


def test_existing_runs_are_never_overwritten(whole, images):
    before = (whole / "certificates.jsonl").read_bytes()
    assert "not empty" in refused("certify", "classes", *CLASSIFIER, "--data", images, "--out", whole)
    assert (whole / "certificates.jsonl").read_bytes() == before


def test_progress_is_lines_in_a_log_and_nothing_where_unwanted(images, tmp_path):
    said = classes(images, tmp_path / "a", "--progress", "plain")
    assert "4 of 4 images done, 0 failed" in said.err
    assert "images done" not in classes(images, tmp_path / "b", "--progress", "none").err
    assert "4 certified" in classes(images, tmp_path / "c", "--progress", "bar").out
    quiet = classes(images, tmp_path / "d", "--quiet")
    assert quiet.out == "" and "images done" not in quiet.err


def test_workers_shards_and_merge(images, whole, tmp_path):
    for number in (1, 2):
        classes(images, tmp_path / str(number), "--shard", f"{number}/2", "--workers", number)
    said = call("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "merged")
    assert lines(tmp_path / "merged") == lines(whole)
    assert RunFolder.open(whole).digest() in said.out
    assert "at least two" in refused("merge", whole, "--out", tmp_path / "x")
    assert "both hold" in refused("merge", whole, tmp_path / "1", "--out", tmp_path / "x")


def test_masks_with_several_taus_and_a_budget(scans, tmp_path):
    masks(scans, tmp_path / "run", "--tau", "0.6,0.75", "--budget", "pixels:60,90,150/0.05", "--sigma", 0.1)
    for record in RunFolder.open(tmp_path / "run").records():
        assert [one.tau for one in record.certificates.values()] == [0.6, 0.75]


def test_measurements_with_masks_from_the_same_samples(scans, measured_run, mask_run, tmp_path):
    alone = tmp_path / "alone"
    measurements(scans, alone)
    pairs = zip(*(RunFolder.open(run).records() for run in (measured_run, mask_run, alone)), strict=True)
    for both, mask, interval in pairs:
        assert list(both.certificates) == ["plain", "plain, measured"]
        assert both.certificates["plain"] == mask.certificates["plain"]
        assert both.certificates["plain, measured"].claim == interval.certificates["plain, measured"].claim
        assert both.scores and not interval.scores
    assert call("certify", "--resume", measured_run, "--allow-code").code == 0


def test_measurements_are_refused_before_the_run(scans, tmp_path):
    def said(*words):
        return refused("certify", "measurements", *SEGMENTER, "--data", scans, "--out", tmp_path / "run", *words)

    assert "measurements none: name at least one" in said()
    assert "radii none must be above 0" in said("--measure", "area:1")
    assert "names the class 'liver'" in said("--measure", "area:liver", "--radius", 0.1)
    assert "is for images of 3 spatial axes" in said("--measure", "volume:1", "--radius", 0.1)
    assert "ctr has a threshold or width and is not measured" in said(*MEASURED, "--threshold", "ctr=0.5")
    assert "is not NAME=NUMBER" in said(*MEASURED, "--threshold", "area:1")
    assert "use n >= " in said(*MEASURED, "--n", 5)
    assert "does not serve measurements" in said(*MEASURED, "--budget", "grid")
    assert "n0=10: measurements have no selection samples" in said(*MEASURED, "--n0", 10)
    assert not (tmp_path / "run").exists()


def test_a_threshold_ends_the_samples_early(scans, tmp_path):
    measurements(scans, tmp_path / "run", "--threshold", "area:1=100000", "--budget", "looks:100,200,400")
    for record in RunFolder.open(tmp_path / "run").records():
        (one,) = record.certificates.values()
        assert (one.n, one.stop.kind, one.intervals["area:1"].place(0)) == (100, "answered", "below")


def test_plan_measurements_names_the_samples_a_radius_needs():
    said = call("plan", "measurements", "--measure", "ctr", "--radius", "0.1,0.25", "--n", 200)
    assert "radius 0.25: a finite interval needs n >= 49" in said.out


def test_export(whole, mask_run, tmp_path):
    assert "4 rows written" in call("export", whole, "--out", tmp_path / "a.csv").out
    assert "4 rows written" in call("export", whole, "--out", tmp_path / "a.tsv").out
    assert "2 rows written" in call("export", mask_run, "--out", tmp_path / "a.txt", "--as", "csv").out
    assert "ends in none of .csv, .parquet, .tsv" in refused("export", whole, "--out", tmp_path / "a.xlsx")
    said = refused("export", whole, "--out", tmp_path / "b.csv", "--method", "plain")
    assert "method is of the formats cohen, png, nifti, dicom-seg, dicom-pm, dicom-sr, and not of csv" in said
    assert "run of masks" in refused("export", mask_run, "--out", tmp_path / "b.tsv")
    assert "is not a run folder" in refused("export", tmp_path, "--out", tmp_path / "b.csv")


# Requests


VALUES = {
    "model": "python:tiny_models:shifted", "denoiser": "demo", "size": "16x12", "output": "probabilities",
    "normalise": "imagenet", "device": "cuda:1", "data.path": "elsewhere", "data.classes": "a,b",
    "data.labels": "t.csv",
    "data.masks": "truth", "data.boxes": "boxes.csv", "data.image_column": "file", "data.label_column": "grade",
    "data.patches": "grid:64", "data.slices": "all", "data.reading.volume": True, "data.reading.orientation": "RAS",
    "data.reading.series": "2", "data.reading.percentiles": "1,99", "resample": "2,2",
    "data.reading.level": 2, "data.reading.nan": "zero", "data.split": "test", "data.limit": 3,
    "data.reading.window": "40,400", "data.reading.frame": 2, "data.reading.axis": "coronal", "data.reading.slice": 7,
    "methods": "plain,denoised", "templates": "a slide of {}", "tuning.initial_context": "a photo of",
    "tuning.copies": 7, "tuning.steps": 3, "tuning.lr": 0.5, "sigma": 0.5, "noise": "float32", "n0": 33,
    "budget": "fixed:333", "alpha": 0.05, "target.bound": "two-sided", "target.taus": "0.8", "target.correction":
    "bonferroni", "target.empty": "skip", "target.measurements": "area:1,count:1", "target.radii": "0.01,0.02",
    "target.thresholds": "area:1=9", "target.widths": "area:1=4", "target.spacing": "0.5,0.5", "seed": 99,
    "space": "native", "speed.precision": "bfloat16", "vary": "gain=0.2,crop-x=3.0px",
    "speed.engine": "openvino", "speed.channels_last": True, "batch_size": "5",
}  # fmt: skip
"""By field: a value that is not its default."""


def typed(option):
    value = VALUES[option.field]
    return [option.flag] if value is True else [option.flag, value]


NO_OPTION = {
    "data.items", "data.groups", "data.reading.max_pixels", "target", "tuning", "speed",
    "data", "data.reading",
}  # fmt: skip
"""Fields without an option: what configuration files alone name, and fields made of others."""


def named_fields(value, prefix=""):
    for name, inner in value.items():
        yield f"{prefix}{name}"
        if isinstance(inner, dict):
            yield from named_fields(inner, f"{prefix}{name}.")


@pytest.mark.parametrize("verb", list(TASKS))
def test_every_field_has_an_option_and_every_option_a_field(verb):
    target = {"measurements": ["ctr"], "radii": [0.1]} if verb == "measurements" else {}
    data = RunSpec.from_dict({"task": TASKS[verb], "model": "m", "data": {"path": "x"}, "target": target}).to_dict()
    known = set(named_fields(data)) - {"task"}
    own = {option.field for option in OPTIONS if verb in option.verbs}
    assert own <= known
    # What the other verb's options name makes no sense here.
    foreign = {option.field for option in OPTIONS if verb not in option.verbs}
    assert known - own - foreign == NO_OPTION
    flags = [option.flag for option in OPTIONS if verb in option.verbs]
    assert len(set(flags)) == len(flags)
    assert {option.field for option in OPTIONS} == set(VALUES)


def test_the_verb_of_settings_takes_every_option_but_those_of_pixels(images, scans, tmp_path):
    text = help_of("certify", "settings")
    for option in OPTIONS:
        assert (option.flag + " " in text) == (option.flag not in ("--denoiser", "--sigma", "--space")), option.flag
    words = ("certify", "settings", "--vary", "gain=0.2,gamma=10%", "--n", 40)
    call(*words, "--data", images, *CLASSIFIER, "--out", tmp_path / "a", "--n0", 10)
    call(*words, "--target", "masks", "--data", scans, *SEGMENTER, "--out", tmp_path / "b", "--n0", 5, "--tau", 0.5)
    for name in "ab":
        assert json.loads((tmp_path / name / "run.json").read_text())["request"]["vary"] == ["gain=0.2", "gamma=0.1"]
    call("certify", "--resume", tmp_path / "a", "--allow-code")
    call("verify", tmp_path / "b")
    assert "use one of classes, masks, measurements" in refused(*words, "--target", "boxes")


def help_of(*words):
    return " ".join(call(*words, "--help", COLUMNS="200").out.split())


@pytest.mark.parametrize("verb", list(TASKS))
def test_help_names_every_option_with_words(verb):
    text = help_of("certify", verb)
    for option in OPTIONS:
        assert (option.flag + " " in text) == (verb in option.verbs), option.flag
    for flag in ("--resume", "--config", "--dry-run", "--shard", "--workers", "--allow-code", "--json", "--progress"):
        assert flag in text


@pytest.mark.parametrize("option", [one for one in OPTIONS if len(one.verbs) < len(TASKS)], ids=lambda one: one.flag)
def test_options_of_other_verbs_are_refused_in_one_sentence(option, tmp_path):
    for other in sorted(set(TASKS) - set(option.verbs)):
        sentence = f"{option.flag} is of {' and '.join(option.verbs)}, not of {other}; leave it out"
        assert refused("certify", other, "--model", "m", "--data", "x", *typed(option)) == sentence
        if (option.flag, other) != ("--radius", "classes"):  # which plan has for a reason of its own
            assert refused("plan", other, *typed(option)) == sentence


def test_the_old_form_is_answered_by_the_new(tmp_path):
    for words in (("--task", "segment", "--model", "demo"), ("--model", "demo"), ("--resume",)):
        said = refused("certify", *words)
        assert said == "say what of: certimed certify classes ..., masks ..., measurements ... or settings ..."
    assert refused("plan", "--sigma", 1) == "say what of: certimed plan classes ..., masks ... or measurements ..."


# What a dry run opens, so only what the tiny models can be asked for.
TRIED = {
    "classes": ("sigma", "noise", "n0", "budget", "alpha", "seed", "space", "target.bound", "data.limit", "batch_size",
                "data.reading.frame", "data.reading.nan", "speed.precision", "speed.channels_last", "tuning.steps"),
    "masks": ("sigma", "noise", "n0", "budget", "alpha", "seed", "space", "target.taus", "target.correction",
              "target.empty", "size", "data.limit", "batch_size", "speed.precision"),
    "measurements": ("sigma", "noise", "n0", "budget", "alpha", "seed", "target.measurements", "target.radii",
                     "target.thresholds", "target.widths", "target.spacing", "target.taus", "data.limit"),
}  # fmt: skip


@pytest.mark.parametrize("verb", list(TASKS))
def test_a_dry_run_prints_the_request_and_config_reads_it_back(verb, images, scans, tmp_path):
    options = [one for one in OPTIONS if one.field in TRIED[verb] and one.field != "data.reading.frame"]
    words = [word for one in options for word in typed(one)]
    base = (*CLASSIFIER, "--data", images) if verb == "classes" else (*SEGMENTER, "--data", scans)
    said = call("certify", verb, *base, *words, "--dry-run")
    assert "noisy copies/s here" in said.err
    (tmp_path / "run.yaml").write_text(said.out)
    again = call("certify", "--config", tmp_path / "run.yaml", "--allow-code", "--dry-run")  # the file says what of
    assert again.out == said.out
    import yaml

    spec = RunSpec.from_dict(yaml.safe_load(said.out))
    (tmp_path / "run.json").write_text(json.dumps(spec.to_dict()))
    assert call("certify", verb, "--config", tmp_path / "run.json", "--allow-code", "--dry-run").out == said.out
    for one in options:  # each option reached its field
        place = spec.to_dict()
        for name in one.field.split("."):
            place = place[name]
        wanted = one.read(VALUES[one.field])
        assert place == (list(wanted) if isinstance(wanted, tuple) else wanted), one.flag
    assert not (tmp_path / "run").exists()


def test_toml_is_read_and_options_win_over_the_file(images, tmp_path):
    pytest.importorskip("tomllib")
    text = f'model = "python:tiny_models:classifier"\nsigma = 1\nbudget = 60\n[data]\npath = "{images}"\n'
    (tmp_path / "run.toml").write_text(text)
    call(
        "certify", "classes", "--config", tmp_path / "run.toml", "--allow-code", "--sigma", 0.5, "--out", tmp_path / "r"
    )
    request = manifest(tmp_path / "r")["request"]
    assert (request["sigma"], request["budget"]) == (0.5, "fixed:60")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.yaml", "a: [", "is broken"),
        ("a.yaml", "- 1", "must hold named fields"),
        ("a.json", "{", "is broken"),
        ("a.json", "[" * 5000, "is broken"),
        ("a.toml", "= 1", "is broken"),
        ("a.ini", "a=1", "must end in .yaml, .toml or .json"),
        ("a.yaml", "model: m\ndata: 3", "data must be an object with named fields, not int"),
        ("a.yaml", "model: m\ndata: {path: x}\nsigmas: 3", "the run has no field 'sigmas'"),
        ("a.yaml", "model: m\ndata: {path: x}\ntask: mask", "asks for 'mask'"),
        ("a.yaml", "model: !!python/object/apply:os.system ['true']", "is broken"),
        ("a.yaml", "model: m\ndata: {path: '[red]x[/]'}\nsigma: '[bold]high'", "'[bold]high'"),
    ],
)
def test_broken_configuration_is_one_sentence(name, text, sentence, tmp_path):
    (tmp_path / name).write_text(text)
    assert sentence in refused("certify", "classes", "--config", tmp_path / name, "--split", "x", "--out", "run")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sigma", "-1"], "sigma"),
        (["--sigma", "nan"], "sigma"),
        (["--alpha", "2"], "alpha"),
        (["--n", "-5"], "n=-5"),
        (["--n", "0"], "n=0"),
        (["--n0", "0"], "n0=0"),
        (["--bound", "three-sided"], "bound three-sided"),
        (["--model", "nonsense"], "nonsense"),
        (["--classes", "one"], "--classes"),
        (["--window", "wide"], "--window"),
        (["--methods", "clever"], "clever"),
        (["--data", "nowhere"], "nowhere"),
        (["--device", "abacus"], "abacus"),
        (["--space", "outer"], "--space outer is unknown"),
        (["--size", "big"], "--size big is not HEIGHTxWIDTH"),
        (["--batch-size", "many"], "--batch-size many"),
        (["--precision", "int8"], "precision='int8' is unknown"),
        (["--n", "50", "--budget", "grid"], "--n 50 and --budget grid both say how many samples"),
        (["--protocol", "published", "--n", "50"], "--protocol published sets --n0 and --n itself"),
        (["--protocol", "published", "--n0", "50"], "--protocol published sets --n0 and --n itself"),
        (["--protocol", "private"], "--protocol private is unknown"),
        (["--shard", "5/4"], "shard 5/4 does not exist"),
        (["--shard", "half"], "is not I/N"),
        (["--executor", "slurm"], "--executor slurm is unknown"),
        (["--address", "auto"], "add --executor ray"),
        (["--progress", "dots"], "--progress dots is unknown"),
        (["--retry-failed"], "add --resume RUN"),
    ],
)
def test_bad_options_get_one_sentence_and_exit_code_2(images, tmp_path, words, sentence):
    few = [] if "--n" in words or "--protocol" in words else ["--n", 50]
    given = [*CLASSIFIER, "--data", images, *few, "--out", tmp_path / "run", *words]
    assert sentence in refused("certify", "classes", *given)
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named_with_an_example(images):
    assert refused("certify", "classes") == "--model is missing; add it, e.g. --model hf:vinid/plip"
    assert "--data is missing" in refused("certify", "masks", "--model", "m")
    assert "either --out NEW_FOLDER" in refused("certify", "classes", *CLASSIFIER, "--data", images)
    assert "add --allow-code" in refused("certify", "classes", *CLASSIFIER[:2], "--data", images, "--out", "x")


def test_the_published_protocol_is_the_papers(images, scans, tmp_path):
    dry = ("--protocol", "published", "--dry-run")
    for verb, words in (("classes", (*CLASSIFIER, "--data", images)), ("masks", (*SEGMENTER, "--data", scans))):
        text = call("certify", verb, *words, *dry).out
        assert ("budget: fixed:10000\nn0: 100" if verb == "classes" else "budget: fixed:100\nn0: 10") in text


LONG = "x" * 300


@pytest.mark.parametrize("flag", ["--data", "--masks", "--labels", "--classes", "--model", "--denoiser", "--methods",
                                  "--config", "--resume", "--out", "--patches"])  # fmt: skip
def test_a_name_too_long_for_the_system_is_one_sentence(flag, images, scans):
    verb = "masks" if flag == "--masks" else "classes"
    base = {
        "--model": SEGMENTER[1] if verb == "masks" else CLASSIFIER[1],
        "--data": scans if verb == "masks" else images,
    }
    given = {flag: LONG} if flag in ("--config", "--resume") else {**base, "--out": "unused", flag: LONG}
    refused("certify", verb, "--allow-code", *(word for pair in given.items() for word in pair))


def test_a_name_that_no_file_can_have_is_one_sentence(images, tmp_path):
    data = {"model": CLASSIFIER[1], "data": {"path": str(images)}}
    for place, name in ((data["data"], "labels"), (data["data"], "patches"), (data["data"], "path"), (data, "denoiser"),
                        (data, "model")):  # fmt: skip
        kept = dict(place)
        place[name] = "a\0b"
        (tmp_path / "run.json").write_text(json.dumps(data))
        refused("certify", "classes", "--config", tmp_path / "run.json", "--allow-code", "--out", tmp_path / "run")
        place.clear()
        place.update(kept)


# Resuming


def test_resume_needs_no_other_option_and_does_only_what_is_missing(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    path = run / "certificates.jsonl"
    content = path.read_bytes()
    first, second, *_ = content.splitlines(keepends=True)
    path.write_bytes(first + second[:100])
    said = call("certify", "--resume", run, "--allow-code")
    assert "an unfinished line of 100 bytes was cut off" in said.err
    assert "4 certified, 0 failed" in said.text
    assert path.read_bytes() == content


@pytest.mark.parametrize("verb", list(TASKS))
@pytest.mark.parametrize("option", OPTIONS, ids=lambda one: one.flag)
def test_a_resumed_run_refuses_every_option_that_differs_naming_both_values(
    verb, option, whole, mask_run, measured_run
):
    if verb not in option.verbs:
        pytest.skip(f"{option.flag} is not of {verb}")
    run = {"classes": whole, "masks": mask_run, "measurements": measured_run}[verb]
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    request = manifest(run)["request"]
    was = request
    for name in option.field.split("."):
        was = was[name]
    words = ["certify", "--resume", run, "--allow-code", *typed(option)]
    if option.differs:
        # Honoured. What they lead to must be the same model and images; none of these is.
        said = call(*words, code=0 if option.flag == "--batch-size" else 2)
        assert "differs from the run" not in said.text
        return
    said = refused(*words)
    assert f"{option.flag} {VALUES[option.field]} differs from the run {run}" in said
    assert json.dumps(was) in said
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_options_that_agree_or_may_differ_are_taken(whole, images, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "certificates.jsonl").write_text("")
    agreeing = (*CLASSIFIER, "--data", images, "--n", 50, "--sigma", 0.25, "--noise", "grid", "--seed", 0)
    said = call("certify", "classes", "--resume", run, *agreeing, "--batch-size", 3, "--workers", 2, "--device", "cpu")
    assert "4 certified" in said.out
    assert lines(run) == lines(whole)


def test_resume_is_refused_what_belongs_to_new_runs(whole, mask_run, tmp_path):
    for more in (("--out", tmp_path / "x"), ("--config", tmp_path / "x.yaml")):
        assert "leave out --out and --config" in refused("certify", "--resume", whole, *more)
    assert "is a run of mask" in refused("certify", "classes", "--resume", mask_run, "--allow-code")
    assert "--tau is of masks" in refused("certify", "--resume", whole, "--tau", 0.9)
    assert "is not a run folder" in refused("certify", "--resume", tmp_path)


def test_the_case_of_options_that_were_dropped_without_a_word(tmp_path):
    images = shared("cases", "resume-ignores-options", "images")
    run = tmp_path / "run"
    call("certify", "classes", *CLASSIFIER, "--data", images, "--sigma", 0.25, "--n", 200, "--out", run)
    words = ("certify", "--resume", run, "--allow-code")
    assert "--sigma 0.5 differs" in refused(*words, "--sigma", 0.5, "--n", 50, "--seed", 7, "--device", "cuda")
    assert "--budget fixed:50 differs" in refused(*words, "--n", 50)
    assert "--seed 7 differs" in refused(*words, "--seed", 7)
    assert "leave out --out" in refused(*words, "--out", tmp_path / "elsewhere")
    call(*words)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_run_folder_that_cannot_be_written_is_one_sentence(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    for path in [*run.iterdir(), run]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert "cannot be written" in refused("certify", "--resume", run, "--allow-code")
    finally:
        run.chmod(0o700)
