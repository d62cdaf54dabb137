"""What a pack says in words: the method, a paragraph for a paper, and where standards speak of the same matter."""

from __future__ import annotations

from typing import Any

from certimed import __version__
from certimed.certificates import ClassClaim, IntervalClaim, MaskClaim, shown
from certimed.evidence.statement import Subject
from certimed.report.html.words import METHODS, where

SOURCES = {
    ClassClaim.kind: "Cohen et al., ICML 2019",
    MaskClaim.kind: "Fischer et al., ICML 2021; Laousy et al., MICCAI 2023",
    IntervalClaim.kind: "order statistics of the values under noise; Chiang et al., NeurIPS 2020",
}
"""Kind of certificates to the source of its statement."""

PROCEDURE = (
    "Fresh Gaussian noise of standard deviation sigma is added to many copies of each image, and the model answers "
    "each copy. The smoothed model's answer is the one that wins (of measurements: the median).",
    "The answer is chosen on selection samples that take no further part. An exact bound on how often it wins, from "
    "estimation samples of their own, gives the radius: the L2 length, in units of the [0, 1] intensity range, below "
    "which no change of the image alters the smoothed model's answer.",
    "Each certificate fails with probability at most alpha over the noise drawn. Where sampling may stop early, or "
    "several claims share samples, alpha covers all looks and all claims together.",
    "Every claim was recomputed from its recorded counts by a second implementation, which shares no bound with the "
    "first.",
)

CROSS_REFERENCES = (
    (
        "Regulation (EU) 2024/1689 (AI Act), Article 15(1): appropriate level of accuracy and robustness",
        "sections 5 and 7 give measured robustness and its limits; which level is appropriate is not decided here",
    ),
    (
        "Article 15(3): levels of accuracy and relevant accuracy metrics declared in the instructions of use",
        "where the images have labels or true masks, section 5 has accuracy or Dice with intervals",
    ),
    (
        "Article 15(4): resilience regarding errors, faults or inconsistencies",
        "failed images are listed and counted in section 6; technical redundancy is not addressed",
    ),
    (
        "Article 15(5): resilience against adversarial examples or model evasion",
        "section 5: no perturbation below the radius changes the answer; data poisoning, model poisoning and "
        "confidentiality attacks are not addressed",
    ),
    (
        "ISO/IEC 24029-2:2023, 5.3 Stability",
        "a certificate is a stability property on an L2 ball around one image (the domain)",
    ),
    (
        "ISO/IEC 24029-2:2023, 6.2.1.3 Deterministic vs non-deterministic verifiers",
        "non-deterministic: true but for probability alpha over the noise drawn",
    ),
    (
        "ISO/IEC 24029-2:2023, 6.2.1.4 glass-box vs closed-box testing",
        "closed-box: the model is asked for answers alone",
    ),
    (
        "ISO/IEC 24029-2:2023, 6.2.1.5 Real vs computer arithmetic verifiers",
        "computer arithmetic where the noise law is a grid, else real arithmetic; see the limits",
    ),
)
"""Heading, and what this pack holds about it. Sources: the regulation in the Official Journal, OJ L, 2024/1689, of 12
July 2024; the table of contents of ISO/IEC 24029-2:2023 as its publishers show it."""


def paragraph(subject: Subject, sentences: list[dict[str, Any]]) -> str:
    """Methods and result of one run as a paragraph for a paper, in the order of CLAIM's and TRIPOD+AI's items: data,
    model, method, failure probability, result, limits."""
    spec, first = subject.spec, subject.series[0]
    sources = "; ".join(dict.fromkeys(SOURCES.get(own[0].first.claim.kind, "") for own in subject.kinds))
    methods = ", ".join(dict.fromkeys(one.method for one in subject.series))
    alphas = " or ".join(shown(alpha, "upper", digits=3) for alpha in sorted({c.first.alpha for c in subject.series}))
    classes = len(subject.folder.classes)
    of_classes = f" with {classes} classes" if classes else ""
    told = " ".join(f"{one['text']}." for one in sentences)
    n0 = f"{spec.n0} selection samples chose the answer and " if spec.n0 else ""
    return (
        f"Robustness analysis. Provable robustness was assessed by randomized smoothing ({sources}) with certimed "
        f"{__version__} on {first.images} images{of_classes} ({first.failed} failed). The model ({spec.model}; "
        f"methods: {methods}) answered copies of each image with Gaussian noise, standard deviation {spec.sigma:g} of "
        f"the intensity range, added to the {where(one.space for one in subject.series)}; {n0}estimation samples under "
        f"the budget {spec.budget} bounded how often it wins (seed {spec.seed}). Each certificate fails with "
        f"probability at most {alphas} over the noise drawn. {told} Certificates are about the smoothed model and "
        "changes of pixel values below the radius (L2); they say nothing of correctness, geometric changes or other "
        "populations. "
        f"All statements were recomputed from their counts by a second implementation; digest {_digest(subject)}."
    )


def method_words(subject: Subject) -> list[tuple[str, str]]:
    """The methods of a run and what each is."""
    return [(one.label, METHODS.get(one.kind, one.kind)) for one in subject.series]


def _digest(subject: Subject) -> str:
    return subject.folder.digest()
