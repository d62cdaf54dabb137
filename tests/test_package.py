"""The package as installed: cheap to import, complete, typed, and true to its metadata."""

import subprocess
import sys
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path

import pytest

import certimed

HEAVY = ("torch", "transformers", "scipy", "numpy", "PIL", "diffusers", "matplotlib")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    assert run(f"import certimed, sys; print([m for m in {HEAVY} if m in sys.modules])").strip() == "[]"


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom certimed.cli.app import main\nsys.argv = ['certimed', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert run(code).strip().splitlines()[-1] == "[]"


def test_statistics_need_no_torch():
    assert run("import certimed.statistics, certimed.budgets, sys; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("name", certimed.__all__)
def test_every_public_name_resolves(name):
    assert getattr(certimed, name) is not None
    assert name in dir(certimed)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="nonsense"):
        certimed.nonsense  # noqa: B018


def test_version_and_typing_marker():
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {certimed.__version__}\n" in citation
    assert "Apache-2.0" in (metadata("certimed").get("License-Expression") or "")
    assert (files("certimed") / "py.typed").is_file()
