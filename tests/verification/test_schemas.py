"""The published JSON schemas describe what runs write, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from verification.forgeries import WORKS

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schemas = {schema["$id"]: schema for schema in (json.loads(path.read_text()) for path in SCHEMAS.glob("*.json"))}
    assert set(schemas) == {"urn:certimed:certificate:2", "urn:certimed:record:2", "urn:certimed:native-radius:2"}
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    registry = Registry().with_resources([(name, Resource.from_contents(one)) for name, one in schemas.items()])
    return Draft202012Validator(schemas["urn:certimed:record:2"], registry=registry)


@pytest.mark.parametrize("work", WORKS)
def test_lines_match_the_published_schemas(tmp_path: Path, validator: Draft202012Validator, work: str) -> None:
    run = WORKS[work].write(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "certificates.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"certified", "failed"}
    for line in lines:
        validator.validate(line)
    certificate = next(line for line in lines if line["certificates"])["certificates"][0]
    for part in (certificate, *(one for one in certificate.values() if isinstance(one, dict) and one)):
        for name in [name for name in part if name not in ("above", "below", "agreeing", "undecided", "Pillow")]:
            if part is certificate["provenance"]["versions"]:
                continue
            value = part.pop(name)
            line = {**lines[0], "certificates": [certificate]}
            assert not validator.is_valid(line), f"{name} may be left out"
            part[name] = value
