"""``certimed certify classes``, ``masks`` and ``measurements``: a request on the command line, run into a folder."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from certimed.cli.console import one_sentence_errors, say, tell
from certimed.cli.request import OPTION_OF, OPTIONS, SETTINGS, TASKS, Typed, read_config, request, resumed, verb_command

CLASSES_HELP = """Certify the labels that a model gives to images, and write a run folder.

[bold]Examples[/]

  certimed certify classes --model hf:vinid/plip --data slides/ --template "An H&E image patch of {}." --out runs/plip

  certimed certify classes --model hf:vinid/plip --data slides/ --methods plain,prompt.safetensors --out runs/learnt

  certimed certify classes --model hf:vinid/plip --data slides/ --budget betting:0.25 --out runs/robust-or-not

  certimed certify classes --model hf:vinid/plip --data slides/ --protocol published --out runs/as-published

  certimed certify classes --model python:my_models:make --allow-code --size 224x224 --data xray/ --out runs/mine

  certimed certify classes --config run.yaml --out runs/plip

  certimed certify --resume runs/plip --workers 4
"""
MASKS_HELP = """Certify every pixel of the masks that a network gives to images, and write a run folder.

[bold]Examples[/]

  certimed certify masks --model smp:FOLDER --denoiser ddpm/ --data xray/ --sigma 0.25 --out runs/lungs

  certimed certify masks --model smp:FOLDER --data xray/ --budget pixels:100,200,400/0.01 --out runs/lungs

  certimed certify masks --model smp:FOLDER --data xray/ --dry-run

  certimed certify --resume runs/lungs
"""
MEASUREMENTS_HELP = """Certify measurements of the masks that a network gives to images, and write a run folder.

The median under noise of each number stays in its interval for every perturbation below the radius.

[bold]Examples[/]

  certimed certify measurements --model smp:FOLDER --data xray/ --measure "area:left lung,ctr" --radius 0.1,0.25 --out runs/ctr

  certimed certify measurements --model smp:FOLDER --data xray/ --measure ctr --radius 0.1 --threshold ctr=0.5 --budget looks:100,200,400,1000 --out runs/enlarged

  certimed certify measurements --model demo --data brains/ --measure "area:grey matter" --radius 0.1 --tau 0.75 --out runs/both
"""  # noqa: E501
SETTINGS_HELP = """Certify answers against other settings of the workflow: window, exposure, crop, box, click.

The raw image is fixed; the noise is on the settings, each in its own unit.

[bold]Examples[/]

  certimed certify settings --model hf:vinid/plip --data ct/ --vary window-center=30HU,window-width=0.2 --target classes --out runs/window

  certimed certify settings --model smp:FOLDER --data xray/ --vary gain=0.2,offset=0.1 --target masks --out runs/exposure

  certimed certify settings --model smp:FOLDER --data xray/ --vary crop=8px,rotation=3deg --target measurements --measure ctr --radius 0.5,1 --out runs/viewport

  certimed certify settings --model sam:FOLDER --data ct/ --vary box=4px --target masks --out runs/box
"""  # noqa: E501
_RUN = "Running"
MORE: dict[str, Any] = {
    "out_": (Annotated[Path | None, typer.Option("--out", help="New run folder.", rich_help_panel=_RUN)], None),
    "config": (
        Annotated[Path | None, typer.Option(help="Request as .yaml, .toml or .json.", rich_help_panel=_RUN)],
        None,
    ),
    "resume": (Annotated[Path | None, typer.Option(help="Run folder to go on with.", rich_help_panel=_RUN)], None),
    "dry_run": (
        Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Open all, say what would be done and how long, and stop.", rich_help_panel=_RUN
            ),
        ],
        False,
    ),
    "retry_failed": (
        Annotated[bool, typer.Option(help="Do failed images again (with --resume).", rich_help_panel=_RUN)],
        False,
    ),
    "shard": (
        Annotated[str | None, typer.Option(help="Part I of N of the images, as I/N.", rich_help_panel=_RUN)],
        None,
    ),
    "workers": (Annotated[int, typer.Option(min=1, help="Worker processes.", rich_help_panel=_RUN)], 1),
    "executor": (Annotated[str, typer.Option(help="local or ray.", rich_help_panel=_RUN)], "local"),
    "address": (
        Annotated[str | None, typer.Option(help="Address of the Ray cluster, e.g. auto.", rich_help_panel=_RUN)],
        None,
    ),
    "allow_code": (
        Annotated[
            bool,
            typer.Option(
                "--allow-code", help="Consent to run the code of a python: model; read it first.", rich_help_panel=_RUN
            ),
        ],
        False,
    ),
    "n": (
        Annotated[int | None, typer.Option("--n", help="Short for --budget fixed:N.", rich_help_panel="Smoothing")],
        None,
    ),
    "adapt": (
        Annotated[
            str | None,
            typer.Option(
                help="Short for --methods: none, and prompt and adapter files, by commas.", rich_help_panel="Methods"
            ),
        ],
        None,
    ),
    "protocol": (
        Annotated[
            str | None,
            typer.Option(help="published: the paper's --n0 and --n, exactly.", rich_help_panel="Smoothing"),
        ],
        None,
    ),
    "progress": (Annotated[str, typer.Option(help="bar, plain, none or auto.", rich_help_panel=_RUN)], "auto"),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="Only errors.", rich_help_panel=_RUN)], False),
    "as_json": (
        Annotated[bool, typer.Option("--json", help="The summary as JSON on standard output.", rich_help_panel=_RUN)],
        False,
    ),
}
PICTURES: dict[str, Any] = {
    "pictures": (
        Annotated[int, typer.Option(min=0, help="Panels to draw of the first N images.", rich_help_panel=_RUN)],
        0,
    ),
}
TARGET: dict[str, Any] = {
    "target": (
        Annotated[str | None, typer.Option(help="What of: classes, masks or measurements.", rich_help_panel="Model")],
        None,
    ),
}
EXECUTORS = ("local", "ray")


class Verbs(TyperGroup):
    """Refuses an option of the other verb by a sentence that says where it belongs; ``certify --resume RUN`` and
    ``--config FILE`` need no verb, as run and file say which it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with one_sentence_errors():
            if args and args[0].startswith("-") and args[0] != "--help":
                args = [_verb_of(ctx.info_name, args, list(self.commands)), *args]
            if args and args[0] in self.commands:
                own = {flag for option in self.commands[args[0]].params for flag in option.opts}
                _refuse_foreign(args[0], args[1:], own)
        return super().parse_args(ctx, args)


def _refuse_foreign(verb: str, args: list[str], own: set[str]) -> None:
    from certimed.errors import InputError

    foreign = {option.flag: option.verbs for option in OPTIONS if option.flag not in own}
    for arg in args:
        flag = arg.partition("=")[0]
        if flag in foreign:
            raise InputError(f"{flag} is of {' and '.join(foreign[flag])}, not of {verb}; leave it out")


def _verb_of(command: str, args: list[str], verbs: list[str]) -> str:
    from certimed.errors import InputError

    values = dict(pairwise(args)) | dict(arg.split("=", 1) for arg in args if arg.startswith("--") and "=" in arg)
    resume, config = values.get("--resume"), values.get("--config")
    if resume is None and config is None:
        raise InputError(f"say what of: certimed {command} {' ..., '.join(verbs[:-1])} ... or {verbs[-1]} ...")
    from certimed.runs import RunFolder

    task = RunFolder.open(resume).task if resume is not None else read_config(Path(str(config))).get("task")
    return next((verb for verb, kind in TASKS.items() if kind == task), "classes")


def certify(
    verb: str,
    typed: Typed,
    *,
    out_: Path | None,
    config: Path | None,
    resume: Path | None,
    dry_run: bool,
    retry_failed: bool,
    shard: str | None,
    workers: int,
    executor: str,
    address: str | None,
    allow_code: bool,
    n: int | None,
    adapt: str | None,
    protocol: str | None,
    progress: str,
    quiet: bool,
    as_json: bool,
    pictures: int = 0,
    target: str | None = None,
) -> None:
    """Run the request; see the verbs' help."""
    with one_sentence_errors():
        from certimed.cli import inputs
        from certimed.cli.results import conclude, draw
        from certimed.cli.watching import watcher
        from certimed.errors import InputError
        from certimed.executors import Executor, RayExecutor
        from certimed.runs import MaskJob, RunFolder, RunSpec, as_yaml, execute

        if verb == SETTINGS:
            verb = inputs.one_of("--target", target or "classes", tuple(TASKS))
        typed = shorthands(verb, typed, n, protocol, adapt)
        if resume is not None and (out_ is not None or config is not None):
            raise InputError("--resume goes on with a run folder as it is; leave out --out and --config")
        if resume is not None:
            data = resumed(verb, RunFolder.open(resume).manifest.get("request"), typed, resume)
        else:
            data = request(verb, typed, config)
        spec = RunSpec.from_dict(data)
        if dry_run:
            from certimed.cli.rehearsing import rehearse

            rehearse(spec.load(allow_code=allow_code), talk=tell)
            say(as_yaml(spec))
            return
        _check_running(out_, resume, retry_failed=retry_failed, executor=executor, address=address, progress=progress)
        job = spec.load(allow_code=allow_code)
        crew: Executor | None = None
        if executor == "ray":
            crew = RayExecutor(workers, address=address, gpus_per_worker=int(job.engine.device.type == "cuda"))
        with watcher(progress, quiet=quiet) as watch:
            folder = execute(
                spec,
                resume or out_ or "",
                resume=resume is not None,
                retry_failed=retry_failed,
                shard=shard,
                workers=workers,
                executor=crew,
                allow_code=allow_code,
                job=job,
                watcher=watch,
            )
        if isinstance(job, MaskJob):
            draw(job, folder, pictures)
        failed = conclude(folder, quiet=quiet, as_json=as_json)
    inputs.exit_for_failures(failed)


def _check_running(
    out: Path | None, resume: Path | None, *, retry_failed: bool, executor: str, address: str | None, progress: str
) -> None:
    """Refuse options of running that do not fit together, before anything is loaded."""
    from certimed.cli import inputs
    from certimed.cli.watching import KINDS
    from certimed.errors import InputError

    inputs.one_of("--executor", executor, EXECUTORS)
    inputs.one_of("--progress", progress, KINDS)
    if address is not None and executor != "ray":
        raise InputError(f"--address {address} is of a Ray cluster; add --executor ray")
    if out is None and resume is None:
        raise InputError("give either --out NEW_FOLDER for a new run or --resume RUN to go on with one")
    if retry_failed and resume is None:
        raise InputError("--retry-failed is for a run that has failed images; add --resume RUN")


def shorthands(verb: str, typed: Typed, n: int | None, protocol: str | None, adapt: str | None = None) -> Typed:
    """``--n``, ``--adapt`` and ``--protocol published`` in the words of a request."""
    from certimed.budgets import as_budget
    from certimed.cli import inputs
    from certimed.errors import InputError

    budget, count = OPTION_OF["budget"], OPTION_OF["n0"]
    found = dict(typed)
    if n is not None:
        if "budget" in found:
            raise InputError(f"--n {n} and --budget {found['budget'][1]} both say how many samples; give one of them")
        found["budget"] = (budget, str(as_budget(n)))
    if adapt is not None:
        if "methods" in found:
            raise InputError("--adapt and --methods both name the methods; give one of them")
        names = ["plain" if part.strip() == "none" else part for part in adapt.split(",")]
        found["methods"] = (OPTION_OF["methods"], ",".join(names))
    if protocol is not None:
        inputs.one_of("--protocol", protocol, ("published",))
        for field in ("budget", "n0"):
            if field in found:
                raise InputError("--protocol published sets --n0 and --n itself; leave out --n0, --n and --budget")
        found["budget"] = (budget, "fixed:10000" if verb == "classes" else "fixed:100")
        found["n0"] = (count, 100 if verb == "classes" else 10)
    return found


app = typer.Typer(cls=Verbs, help="Certify a model on your own images.", no_args_is_help=True, rich_markup_mode="rich")
app.command("classes", help=CLASSES_HELP)(verb_command("classes", certify, MORE))
app.command("masks", help=MASKS_HELP)(verb_command("masks", certify, MORE | PICTURES))
app.command("measurements", help=MEASUREMENTS_HELP)(verb_command("measurements", certify, MORE))
app.command("settings", help=SETTINGS_HELP)(verb_command(SETTINGS, certify, MORE | PICTURES | TARGET))
