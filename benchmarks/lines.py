"""The folder of a study: its settings, and one JSON line an image, so that a stopped study goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from certimed.errors import InputError


def whole_lines(path: Path) -> list[str]:
    """Lines of a file; a last line that a stop cut short is taken off it."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    return text.splitlines()


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder and note its settings.

    Raises:
        InputError: it was made with other ones; names the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = json.loads(json.dumps(settings))
    path = folder / "setting.json"
    if not path.exists():
        path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in about if before.get(name) != about[name]]
    if changed:
        raise InputError(
            f"{folder} was made with {changed[0]} {before.get(changed[0])}, now {about[changed[0]]}; use another --out"
        )
