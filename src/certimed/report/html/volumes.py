"""The part of the page about volumes that were cut into slices."""

from __future__ import annotations

from certimed.certificates import ClassClaim, MaskClaim
from certimed.report.html.part import Line, Material, Part, run_title
from certimed.report.sentences import Sentence
from certimed.report.tables import Table
from certimed.report.volumes import volumes_table


class VolumePart(Part):
    """Every volume whose slices were certified one by one: a summary of it, and how surely all of it holds."""

    template = "volumes.html.j2"
    contents = (("volumes", "Volumes"),)

    def __init__(self, lines: list[Line], material: Material) -> None:
        super().__init__(lines)
        self._readers = material.masks

    @classmethod
    def of(cls, material: Material) -> Part | None:
        lines = [line for line in material.of(ClassClaim.kind, MaskClaim.kind) if line.run.spec.data.slices]
        return cls(lines, material) if lines else None

    def headlines(self) -> dict[int, Sentence]:
        """None of its own: the slices' parts say them."""
        return {}

    def tables(self) -> list[tuple[str, Table]]:
        """One table a run."""
        found = []
        for own in self.runs:
            reader = self._readers.get(own[0].run.index)
            counts = None if reader is None else reader.counts
            found.append((f"{run_title(own)}, by volume", volumes_table([line.of for line in own], counts)))
        return found
