"""Certificates as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from certimed.certificates.mask_files import png_data_uri

if TYPE_CHECKING:
    from certimed.certificates.classification import ClassCertificate
    from certimed.certificates.mask import MaskCertificate

_PICTURES = {"mask": "class of each pixel", "certified": "certified (white)", "radius": "radius of each pixel"}


def class_card(certificate: ClassCertificate) -> str:
    """A table of a class certificate's numbers, and its statement."""
    c, units = certificate, certificate.units()
    answer = f"abstained ({c.abstention})" if c.abstained else f"class {c.prediction}"
    rows = {
        "image": c.item,
        "answer": answer,
        "radius (L2, [0, 1] units)": f"{c.radius:.4f}",
        "radius (L2, grey levels)": f"{units.l2_grey_levels:.1f}",
        "per-value RMS (grey levels)": f"{units.rms_grey_levels:.3g}",
        "L-infinity implied (grey levels)": f"{units.linf_grey_levels:.3g}",
        **({} if c.native is None else c.native.rows()),
        "p lower": f"{c.p_lower:.6f}",
        "samples": f"{c.n0} + {c.n}",
        "budget": f"{c.budget}, {c.stopped}",
        "alpha, sigma": f"{c.alpha:g}, {c.sigma:g}",
        "scope": c.scope,
        "space": c.space,
    }
    return _card(rows, "", c.statement())


def mask_card(certificate: MaskCertificate) -> str:
    """A table of a mask certificate's numbers, pictures of a section's layers, and its statement."""
    c, units = certificate, certificate.units()
    rows = {
        "image": c.item,
        "pixels certified": f"{c.share_certified:.2%} of {c.pixels}",
        "abstained": "; ".join(f"{name}: {count}" for name, count in c.abstention().items()),
        "radius (L2, [0, 1] units)": f"{c.radius:.4f}",
        "radius (L2, grey levels)": f"{units.l2_grey_levels:.1f}",
        "per-value RMS (grey levels)": f"{units.rms_grey_levels:.3g}",
        **({} if c.native is None else c.native.rows()),
        "correction, tau": f"{c.correction}, {c.tau:g}",
        "samples": f"{c.n0} + {c.n}",
        **({} if c.budget is None else {"budget": f"{c.budget}, {c.stopped}"}),
        "alpha, sigma": f"{c.alpha:g}, {c.sigma:g}",
        "scope": c.scope,
        "space": c.space,
    }
    pictures = ""
    if c.mask.ndim == 2:
        pictures = "".join(
            f'<figure style="display:inline-block"><img src="{png_data_uri(name, c.layer(name))}" alt="{words}">'
            f"<figcaption>{words}</figcaption></figure>"
            for name, words in _PICTURES.items()
        )
    return _card(rows, pictures, c.statement())


def _card(rows: Mapping[str, str], pictures: str, statement: str) -> str:
    """Everything from a file is escaped: an image's name may be anything."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{body}</table>{pictures}<p>{escape(statement)}</p>"
