"""What the package ships: demo weights and images, with their model cards."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from certimed.errors import InputError


def asset(name: str) -> Path:
    """Path of a shipped file or folder, e.g. ``"demo_images"``.

    Raises:
        InputError: the installation lacks it.
    """
    path = Path(str(resources.files("certimed"))) / "assets" / name
    if not path.exists():
        raise InputError(f"the installed package has no asset {name!r}; install certimed again")
    return path


def demo_prompts() -> dict[str, Any]:
    """Class names in words by folder (``classes``), ``templates`` and ``initial_context`` of the demo model."""
    content: dict[str, Any] = json.loads((asset("demo_clip") / "classes.json").read_text(encoding="utf-8"))
    return content
