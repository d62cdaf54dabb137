"""Models that are code: run on consent only, and what is no model is refused in one sentence."""

import sys

import pytest

from certimed import InputError
from certimed.usercode import load_user_model


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "certimed_test_model.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "value = 3\n"
        "def build():\n    return lambda x: x\n"
        "def nothing():\n    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("certimed_test_model", None)


def test_code_runs_with_consent_only(own_module):
    with pytest.raises(InputError, match="add --allow-code if you trust it"):
        load_user_model("python:certimed_test_model:build", allow_code=False)
    assert not (own_module / "ran").exists()
    made = load_user_model("python:certimed_test_model:build", allow_code=True)
    assert made.model(5) == 5
    assert len(made.source_sha256) == 64


@pytest.mark.parametrize(
    "spec",
    [
        "python:certimed_test_model:nothing",
        "python:certimed_test_model:value",
        "python:certimed_test_model:missing",
        "python:no_such_module_here:build",
        "python:os.system('true'):build",
        "python:../evil:build",
        "python::",
        "python:certimed_test_model:build\n",
    ],
)
def test_code_that_cannot_be_a_model_is_one_sentence(own_module, spec):
    with pytest.raises(InputError):
        load_user_model(spec, allow_code=True)
