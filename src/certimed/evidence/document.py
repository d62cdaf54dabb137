"""The test report of a pack, as HTML and as PDF: one document, laid out as laboratories do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from certimed.errors import require
from certimed.evidence.statement import Subject
from certimed.evidence.words import CROSS_REFERENCES, PROCEDURE, method_words, paragraph
from certimed.report.html.numbers import plain
from certimed.report.tables import table


def test_report(stated: Mapping[str, Any], subjects: Sequence[Subject]) -> str:
    """The test report as one HTML page without scripts; needs jinja2."""
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("certimed.evidence", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    text: str = environment.get_template("test-report.html.j2").render(
        statement=stated,
        subjects=subjects,
        pairs=list(zip(stated["runs"], subjects)),
        css=(files("certimed.evidence") / "templates" / "test-report.css").read_text(encoding="utf-8"),
        procedure=PROCEDURE,
        cross_references=CROSS_REFERENCES,
        method_words=method_words,
        paragraph=paragraph,
        table=table,
    )
    return text.encode("utf-8", "backslashreplace").decode()


def as_pdf(html: str, identifier: str) -> bytes:
    """The same document as PDF, by WeasyPrint: no script is run and nothing is fetched.

    Args:
        html: the document.
        identifier: hex digest that makes the file's identifier, so that equal documents give equal bytes.

    Raises:
        MissingExtraError: WeasyPrint, or the Pango library it draws text with, is not installed.
    """
    weasyprint = require_weasyprint()
    made: bytes = weasyprint.HTML(string=html, url_fetcher=_nothing).write_pdf(
        pdf_identifier=bytes.fromhex(identifier)[:16]
    )
    return made


def require_weasyprint() -> Any:
    """WeasyPrint; MissingExtraError where it, or the Pango library it needs, is not installed."""
    from certimed.errors import MissingExtraError

    try:
        return require("weasyprint", "pack")
    except OSError as error:
        raise MissingExtraError(
            f"WeasyPrint cannot load a library it draws text with ({error}); install Pango (Debian: apt-get install "
            "libpango-1.0-0 libpangoft2-1.0-0), or leave the PDF out with --no-pdf"
        ) from error


def _nothing(url: str, *_: Any, **__: Any) -> Any:
    raise ValueError(f"a test report fetches nothing, not {url:.80}")
