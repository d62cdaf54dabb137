"""The images of a run, found again by their ids: where it read them, or where they are now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from certimed.data import Dataset, Item, MedicalImage
from certimed.errors import CertimedError, ImageError, InputError, MissingExtraError
from certimed.runs.folder import RunFolder
from certimed.runs.spec import RunSpec


@dataclass
class Pictures:
    """The images of a run, found again by their ids.

    Attributes:
        note: why there are no pictures, or what is not sure about them; None where all is well.
    """

    note: str | None = None
    _dataset: Dataset | None = None
    _places: dict[str, int] = field(default_factory=dict)

    def load(self, item: str) -> MedicalImage | None:
        """One image, or None where it cannot be read."""
        if self._dataset is None or item not in self._places:
            return None
        with suppress(ImageError, MissingExtraError):
            return self._dataset.load(self._places[item])
        return None

    def item(self, item: str) -> Item | None:
        """The entry of the data set, with its files; None where it is not there."""
        return None if self._dataset is None or item not in self._places else self._dataset.items[self._places[item]]


def find_pictures(folder: RunFolder, items: Iterable[str], **where: str | Path | None) -> Pictures:
    """Open the images of a run: from where it read them, or from where they are now.

    Only files that the data set's own reader lists are ever opened; a run's ids choose among them and are no paths.

    Args:
        folder: the run.
        items: ids of its images.
        where: fields of :class:`certimed.runs.DataSpec` that have changed: ``path``, ``labels``, ``masks``, ``split``.
            With a ``path`` the others are no longer the recorded ones.
    """
    wanted, spec = set(items), RunSpec.from_dict(folder.manifest.get("request")).data
    if moved := where.get("path"):
        rest = {name: where.get(name) for name in ("labels", "masks", "split")}
        given = {name: None if value is None else str(value) for name, value in rest.items()}
        tried = [replace(spec, path=str(moved), **given)]  # type: ignore[arg-type]
    else:
        section = folder.manifest.get("data")
        source = section.get("source") if isinstance(section, dict) else None
        tried = [spec, *([replace(spec, path=source)] if isinstance(source, str) else [])]
    reason = ""
    for one in tried:
        try:
            dataset = one.open()
        except (CertimedError, OSError, ValueError) as error:
            reason = reason or str(error)
            continue
        places = {item: index for index, item in enumerate(dataset.ids) if item in wanted}
        if places:
            missing = len(wanted) - len(places)
            note = f"{missing} of {len(wanted)} images were not found in the data." if missing else None
            return Pictures(note, dataset, places)
        reason = reason or "no image there has a name of this run"
    if not moved:
        return Pictures("The images are no longer where the run read them; name their folder with --data.")
    return Pictures(f"No pictures are shown: {reason}.")


@dataclass(frozen=True)
class Images:
    """Where the images of a run are read from: the recorded place, unless another is named.

    Attributes:
        run: the run folder.
        data, masks, labels, split: where they are now.
    """

    run: Path
    data: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    split: str | None = None

    def find(self, folder: RunFolder, items: Iterable[str]) -> Pictures:
        """Those of these ids that are there."""
        where = {"labels": self.labels, "masks": self.masks, "split": self.split}
        return find_pictures(folder, items, path=self.data, **where)

    def load(self, items: Sequence[str]) -> list[MedicalImage]:
        """The images of these ids; InputError where one cannot be found or read."""
        pictures = self.find(RunFolder.open(self.run), items)
        loaded = []
        for item in items:
            image = pictures.load(item)
            if image is None:
                note = pictures.note or "it cannot be read"
                raise InputError(f"the image {item!r:.80} of {self.run} cannot be shown: {note}")
            loaded.append(image)
        return loaded
