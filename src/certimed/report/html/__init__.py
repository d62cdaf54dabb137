"""One self-contained HTML page about one or several runs."""

from certimed.report.html.page import Report, write_report

__all__ = ["Report", "write_report"]
