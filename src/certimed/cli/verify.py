"""``certimed verify``: is everything true that a run or a certificate says?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from certimed.cli.console import EXIT_FALSE, harmless, one_sentence_errors, say

if TYPE_CHECKING:
    from certimed.verification import Redrawn

HELP = """Recompute every statement of a run, certificate or pack from its recorded counts; exit code 1 if one is false.

Needs no model, no data and no GPU, and computes with an implementation of its own (extra: verify).
[bold]--resample[/] also certifies some images again and compares whole records; that needs model and data. Exit code 4:
device, precision, batch size or versions differ from the recorded ones, so only consistency could be tested.

[bold]Examples[/]

  certimed verify runs/plip

  certimed verify runs/plip --expect 5f0c...  (the digest noted when the run was finished)

  certimed verify certificate.json

  certimed verify evidence --key key.pub  (a pack: every file, the signature, every run in it)

  certimed verify runs/plip --resample 5 --model hf:vinid/plip --data slides/

  certimed verify runs/lungs --resample 5 --model smp:FOLDER --denoiser ddpm/ --data xray/
"""
_AGAIN = "Certify again"


def verify(
    path: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_CERTIFICATE", help="Run folder, certificate (JSON) or evidence pack."),
    ],
    expect: Annotated[str | None, typer.Option(help="Digest the run must have, noted elsewhere.")] = None,
    key: Annotated[Path | None, typer.Option(help="Public key that must have signed the pack.")] = None,
    allow_incomplete: Annotated[bool, typer.Option(help="Take missing images for images not done yet.")] = False,
    resample: Annotated[int, typer.Option(min=0, help="Certify so many images again.", rich_help_panel=_AGAIN)] = 0,
    salt: Annotated[
        str | None, typer.Option(help="Chooses the images; default: random, and printed.", rich_help_panel=_AGAIN)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The run's model, as you know it.", rich_help_panel=_AGAIN)] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Consent to run a python: model.", rich_help_panel=_AGAIN)
    ] = False,
    denoiser: Annotated[str | None, typer.Option(help="Its denoiser.", rich_help_panel=_AGAIN)] = None,
    methods: Annotated[
        str | None, typer.Option(help="Its methods and prompt files, by commas.", rich_help_panel=_AGAIN)
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Its images.", rich_help_panel=_AGAIN)] = None,
    labels: Annotated[Path | None, typer.Option(help="Their table.", rich_help_panel=_AGAIN)] = None,
    masks: Annotated[Path | None, typer.Option(help="Their masks.", rich_help_panel=_AGAIN)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...", rich_help_panel=_AGAIN)] = "auto",
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.errors import InputError
        from certimed.verification import is_pack
        from certimed.verification import verify as check

        if is_pack(path):
            _review(path, key, expect)
            return
        if key is not None:
            raise InputError(f"--key is of an evidence pack, and {path} is none; leave it out")
        verdict = check(path, expect=expect, allow_incomplete=allow_incomplete)
        for where, fault in verdict.faults:
            say(Text("false", "bold red"), f" {harmless(where)}: {harmless(fault, 400)}")
        if not verdict.ok:
            raise typer.Exit(EXIT_FALSE)
        failed = f", {verdict.failed} images failed" if verdict.failed else ""
        say(f"true: {verdict.certificates} certificates of {verdict.images} images{failed}")
        if verdict.digest is not None:
            say(f"digest {verdict.digest}")
        if resample:
            from certimed.cli.inputs import needed

            places = {
                "model": needed("--model", model, "hf:vinid/plip"),
                "denoiser": denoiser,
                "methods": None if methods is None else [name.strip() for name in methods.split(",")],
                "device": device,
                "data.path": str(needed("--data", data, "images/")),
                "data.labels": None if labels is None else str(labels),
                "data.masks": None if masks is None else str(masks),
            }
            found = certify_again(path, resample, salt, places, allow_code=allow_code)
            _say(found)
            if found.exit_code:
                raise typer.Exit(found.exit_code)


def _review(path: Path, key: Path | None, expect: str | None) -> None:
    from certimed.evidence import check_pack

    review = check_pack(path, key=key, expect=expect)
    verdict = review.verdict
    for where, fault in verdict.faults[:20]:
        say(Text("false", "bold red"), f" {harmless(where)}: {harmless(fault, 400)}")
    if not verdict.ok:
        raise typer.Exit(EXIT_FALSE)
    runs = verdict.verdicts.values()
    images, certificates = sum(one.images for one in runs), sum(one.certificates for one in runs)
    say(f"true: {certificates} certificates of {images} images in {len(runs)} runs; {verdict.files} files as packed")
    if review.other_version is not None:
        say(f"written by version {harmless(review.other_version, 40)}, so its documents were not made again to compare")
    else:
        say(f"{review.compared} documents made again from the runs: equal")
    if verdict.signed_by is None:
        say("not signed")
    else:
        whose = "the key you named" if verdict.key_checked else "a key that was not compared; name yours with --key"
        say(f"signed by {whose}: {verdict.signed_by}")
    say(f"root {verdict.root}")


def certify_again(path: Path, m: int, salt: str | None, places: dict[str, Any], *, allow_code: bool) -> Redrawn:
    """Certify some images of a run again, by its own request, from the model and data that are named here.

    Args:
        places: fields of the request that say where things are, which may differ between machines.
    """
    import secrets

    from certimed.runs import RunFolder, RunSpec, data_section
    from certimed.verification import resample

    folder = RunFolder.open(path)
    wanted: dict[str, Any] = json.loads(json.dumps(folder.manifest.get("request")))
    for field, value in places.items():
        parent, _, last = field.rpartition(".")
        place = wanted[parent] if parent else wanted
        if value is not None or last not in ("methods", "denoiser"):
            place[last] = value
    local = folder.manifest.get("local")
    if isinstance(local, dict) and "batch_size" in local:
        wanted["batch_size"] = local["batch_size"]
    job = RunSpec.from_dict(wanted).load(allow_code=allow_code)
    now = job.manifest(data_section(job.dataset)) | ({"local": local} if local else {})
    chosen = salt if salt is not None else secrets.token_hex(8)
    return resample(path, m, chosen, job.redraw, now=now, ids=job.dataset.ids)


def _say(found: Redrawn) -> None:
    for fault in found.faults:
        say(Text("false", "bold red"), f" {harmless(fault, 400)}")
    for name, (was, here) in found.changed.items():
        say(f"differs here: {harmless(name)}, recorded {harmless(str(was), 80)}, here {harmless(str(here), 80)}")
    for image in found.images:
        say(f"{harmless(image.item)}: {image.level}")
        for level, sentence in image.findings:
            say(f"  {level}: {harmless(sentence, 400)}")
    say(f"certified again with salt {harmless(found.salt)}: {found.level}")
