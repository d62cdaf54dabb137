"""What the documentation tells a reader to type, taken out of its pages, and what the tests put in its place.

A block is run unless the line above it says ``<!-- not run: REASON -->``. The tables below say everything that differs
between what is written and what is run: smaller models in the same format, fewer noisy copies, fewer images.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_LANGUAGES = ("console", "bash", "python")

# Written -> run. Applied in order, to every command; MODELS is a folder of tiny models in the published formats.
SUBSTITUTIONS: list[tuple[str, str]] = [
    (r"\bhf:vinid/plip\b", "hf:MODELS/plip"),
    (r"\bopen_clip:hf-hub:wisdomik/QuiltNet-B-32\b", "open_clip:MODELS/quiltnet"),
    (r"--model biomedclip\b", "--model biomedclip:MODELS/biomedclip"),
    (r"\bload\(\"biomedclip\"\)", 'load("biomedclip:MODELS/biomedclip")'),
    (r"\bmedclip:my_medclip\b", "medclip:MODELS/medclip"),
    (r"\btorchvision:resnet18:weights.pth", "torchvision:squeezenet1_1:MODELS/weights.pth/squeezenet.pth"),
    (r"\bonnx:model.onnx", "onnx:MODELS/onnx/model.onnx"),
    (r"--model plip\b", "--model hf:MODELS/plip"),
    (r'"kather", "plip"', '"kather", "hf:MODELS/plip"'),
    (r"sigmas=\(0.25, 0.5\)\), images=100", "sigmas=(0.25,), n=20, shots=2, epochs=1), images=2"),
    (r"--shots 16\b", "--shots 2"),
    (r"\bsteps=400\b", "steps=1, batch=2"),
    (r"\bshots=16\b", "shots=2"),
    (r"--epochs 300\b", "--epochs 2"),
    (r"--n 1000\b", "--n 40"),
    (r"--budget betting:0.25\b", "--budget betting:0.25@60"),
    (r"--n 10000\b", "--n 40"),
    (r"\bn=10_000\b", "n=40"),
    (r"\bn=1_000\b", "n=40"),
    (r"\battack runs/plip --images 20\b", "attack runs/plip --images 1 --n 200 --bisections 1 --steps 2"),
    (r"attack\(\"runs/plip\", images=20\)", 'attack("runs/plip", images=1, n=200, bisections=1, steps=2)'),
    (r'DataSpec\("slides/"\)', 'DataSpec("slides/", limit=2), budget=40, n0=10'),
    (r"--out evidence\b", "--out evidence --no-pdf"),
    (r"--device cuda\b", "--device cpu"),
    (r"--steps 2000\b", "--steps 2"),
    (r"--size 512x512\b", "--size 32x32"),
    (r"--size 128x128\b", "--size 32x32"),
    (r"--pictures 4\b", "--pictures 1"),
    (r"--sweep shots\b", "--sweep shots --values 1,2"),
]
# Verb -> what is added unless the command says it itself.
ADDED: dict[str, dict[str, str]] = {
    "demo": {"--images": "1", "--n": "10", "--masks": "1", "--mask-n": "64"},
    "certify measurements": {"--n": "60", "--limit": "2"},
    "certify masks": {"--n0": "10", "--n": "60", "--limit": "2"},
    "certify classes": {"--n0": "10", "--n": "40", "--limit": "3"},
    "certify settings": {"--n": "60", "--limit": "2"},
    "tune": {"--epochs": "2", "--steps": "2", "--batch": "4"},
    "train denoiser": {"--steps": "2", "--widths": "8,16", "--batch": "2"},
    "reproduce promptsmooth": {"--limit": "2", "--n": "20", "--sigma": "0.25", "--shots": "2", "--epochs": "1"},
    "reproduce segmentation": {"--limit": "1", "--n": "80", "--sigma": "0.25"},
    "plan classes": {"--n0": "10", "--n": "40", "--limit": "2"},
}
MARKER = re.compile(r"<!-- not run: (.+?) -->")
FENCE = re.compile(
    r"""^(?P<indent>[ ]*)(?P<fence>```+)(?P<language>[\w-]*)(?:[ ]title="(?P<title>[^"]+)")?\n
    (?P<text>.*?)^(?P=indent)(?P=fence)[ ]*$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``reason`` is set where it is not run, ``title`` where it is a file to write."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None
    title: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Step:
    """A command of a console block and the output shown for it ("" where none is)."""

    command: str
    shown: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip("\n").rsplit("\n", 1)[-1]
        marker = MARKER.fullmatch(above.strip())
        line = text.count("\n", 0, match.start()) + 1
        body = textwrap.dedent(match["text"])
        found.append(Block(page, line, match["language"], body, marker[1] if marker else None, match["title"]))
    return found


def steps(block: Block) -> list[Step]:
    """Commands of a console block: lines after ``$``, continued by a backslash; what follows is output."""
    found: list[Step] = []
    command: str | None = None
    shown: list[str] = []
    continued = False
    for line in block.text.splitlines():
        if continued:
            command = f"{command}\n{line}"
        elif line.startswith("$ "):
            if command is not None:
                found.append(Step(command, "\n".join(shown).strip()))
            command, shown = line[2:], []
        else:
            assert command is not None, f"{block}: output before the first command; commands start with $"
            shown.append(line)
            continue
        continued = line.endswith("\\")
    assert command is not None, f"{block}: no command; commands start with $"
    return [*found, Step(command, "\n".join(shown).strip())]


def certimed_words(command: str) -> list[str] | None:
    """Words of a plain ``certimed`` command, comment left out; None for anything else."""
    joined = command.replace("\\\n", " ")
    unquoted = re.sub(r"""'[^']*'|"[^"$`]*"|\s#.*""", "", joined)
    if not joined.startswith("certimed ") or re.search(r"[|&;<>$`*]", unquoted):
        return None
    return shlex.split(joined, comments=True)[1:]


def smaller(text: str, models: Path) -> str:
    """The command or code with the substitutions made."""
    for written, run in SUBSTITUTIONS:
        text = re.sub(written, run.replace("MODELS", models.as_posix()), text)
    return text


def with_added(words: list[str]) -> list[str]:
    """The words of a certimed command with the options of :data:`ADDED`, except those that are there."""
    for verb, options in ADDED.items():
        if words[: len(verb.split())] == verb.split() and "--resume" not in words:
            said = {*words, "--n"} if "--budget" in words or "--protocol" in words else set(words)
            return [*words, *(word for option in options.items() if option[0] not in said for word in option)]
    return words
