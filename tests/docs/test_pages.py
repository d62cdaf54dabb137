"""The pages themselves: links that lead somewhere, a menu that lists every page, a short way for newcomers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_pages import COMMAND_LANGUAGES, PAGES, ROOT, blocks, steps

LINK = re.compile(r"(?<!\\)\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCED.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Ids of a page's headings, as both the site and code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(prose(page)):
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor and place.suffix == ".md" and "api" not in place.parts:
            assert anchor in anchors(place), f"{page.name}: {target}#{anchor}"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for page in (ROOT / "docs").rglob("*.md"):
        assert f" {page.relative_to(ROOT / 'docs').as_posix()}\n" in menu, page.name


def test_commands_stand_in_fences_that_the_tests_read() -> None:
    """No command hides in an indented block or in a fence of another language."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        hidden = re.findall(r"^(?: {4}|\t)(?:\$ |certimed )\S.*$", FENCED.sub("", text), re.MULTILINE)
        assert not hidden, f"{page.name}: {hidden}"
        for block in blocks(page):
            if block.language not in COMMAND_LANGUAGES:
                assert not re.search(r"^(\$ )?certimed [a-z]", block.text, re.MULTILINE), str(block)


def test_a_newcomer_needs_no_more_than_fifteen_commands() -> None:
    page = ROOT / "docs" / "quickstart.md"
    commands = [step.command for block in blocks(page) if block.language == "console" for step in steps(block)]
    assert len(commands) <= 15
    for verb in ("pip install", "tune", "certify", "verify", "report"):
        assert any(verb in command for command in commands), verb


@pytest.mark.parametrize("who", ["pathology", "radiology", "assessor"])
def test_a_tutorial_has_fewer_than_fifteen_commands_and_its_limits_first(who: str) -> None:
    page = ROOT / "docs" / f"tutorial-{who}.md"
    commands = [step.command for block in blocks(page) if block.language == "console" for step in steps(block)]
    assert 5 <= len(commands) < 15
    assert any("verify" in command for command in commands) and "not" in prose(page)


def test_the_site_asks_nothing_of_the_network() -> None:
    """No fonts, scripts or styles from elsewhere."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text and "http" not in text


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_of_the_tests_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(r"\btests/[\w/]+\.py\b", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), f"{page.name}: {name}"
