"""The table of volumes whose slices were certified one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from certimed.certificates import shown
from certimed.metrics import MaskCounts, overlap_scores
from certimed.metrics.segmentation import DICE_LOW
from certimed.metrics.volumes import CutVolume, all_at_once, by_volume, summed
from certimed.report.profiles import foreground
from certimed.report.series import Series
from certimed.report.tables import DASH, Column, Row, Table, bound, per_cent

_NOTES = (
    "All slices at once: a change of the volume below the radius is below it in every slice, so all certificates of a "
    "volume hold together, except with the sum of their failure probabilities.",
    "A volume with a failed slice has no guaranteed Dice: nothing is known of that slice.",
)


def volumes_table(series: Sequence[Series[Any]], counts: Mapping[str, Sequence[MaskCounts]] | None = None) -> Table:
    """One row a series and volume: of labels the certified slices by class, of masks certified pixels and Dice.

    Args:
        series: of one run that cut volumes into slices; of labels or of masks.
        counts: pixel counts of every slice against its truth by the series' label, in the order of its records; a
            series without them has no Dice.
    """
    masks = series[0].masks
    columns = [Column("method", left=True), Column("volume", left=True), Column("slices"), Column("failed")]
    if masks:
        columns += [Column("pixels certified (%)"), Column("guaranteed Dice")]
    else:
        columns += [Column("certified slices"), Column("as", left=True)]
    columns.append(Column("all at once, fails with"))
    rows = []
    for one in series:
        known = (counts or {}).get(one.label, ())
        known = known if len(known) == len(one.records) else ()
        volumes = by_volume([record.item for record in one.records], [record.item for record in one.failures])
        for volume in volumes:
            alpha = all_at_once(one.certificates[place].alpha for place in volume.slices)
            middle = _of_masks(one, volume, known) if masks else _of_labels(one, volume)
            cells = (one.name, volume.name, str(len(volume.slices) + volume.failed), str(volume.failed), *middle)
            rows.append(Row(one, one.label, (*cells, DASH if alpha >= 1 else shown(alpha, "upper", digits=2))))
    return Table("volumes, slice by slice", tuple(columns), tuple(rows), _NOTES)


def _of_masks(one: Series[Any], volume: CutVolume, counts: Sequence[MaskCounts]) -> tuple[str, str]:
    certificates = [one.certificates[place] for place in volume.slices]
    pixels = sum(c.pixels for c in certificates)
    certified = sum(int(c.certified.sum()) for c in certificates)
    share = per_cent(certified / pixels, 1, "lower") if pixels else DASH
    if not counts or volume.failed or not volume.slices:
        return share, DASH
    empty = one.scores[0].empty if one.scores else "one"
    scores = overlap_scores(summed([counts[place] for place in volume.slices]), empty)
    return share, bound(foreground(scores[DICE_LOW]), "lower")


def _of_labels(one: Series[Any], volume: CutVolume) -> tuple[str, str]:
    found = Counter(
        one.class_name(c.prediction) for place in volume.slices if not (c := one.certificates[place]).abstained
    )
    return str(sum(found.values())), ", ".join(f"{name} {count}" for name, count in found.most_common()) or DASH
