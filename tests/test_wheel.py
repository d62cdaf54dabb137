"""A wheel, installed elsewhere, is whole: the demo runs from it, offline, and it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import certimed

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_wheel_works_elsewhere(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True, check=False)
    if "setuptools" in made.stderr and made.returncode:
        pytest.skip("setuptools is not installed here, and building without it would download")
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("certimed-*.whl")
    assert certimed.__version__ in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("py.typed", "assets/demo_lora/lora.safetensors", "report/templates/page.css",
                 "evidence/templates/test-report.html.j2", "evidence/statement.schema.json"):  # fmt: skip
        assert f"certimed/{name}" in names, name
    place = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", str(place), str(wheel)], check=True
    )
    # The libraries are those of this environment; certimed itself comes from the wheel alone.
    environment = {**os.environ, "PYTHONPATH": str(place), "HF_HUB_OFFLINE": "1", "no_proxy": "", "https_proxy": "x:1"}
    elsewhere = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    found = subprocess.run(
        [sys.executable, "-c", "import certimed; print(certimed.__file__)"], check=False, **elsewhere
    )
    assert found.stdout.startswith(str(place)), found
    words = ["demo", "--out", "demo", "--images", "1", "--n", "20", "--masks", "1", "--mask-n", "64"]
    done = subprocess.run([sys.executable, "-m", "certimed", *words], check=False, **elsewhere)
    assert done.returncode == 0, done.stderr
    assert "area:grey matter" in done.stdout and "lora" in done.stdout
