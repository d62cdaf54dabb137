"""Class names: what the user says, what folders, tables and arrays say, and how the two meet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from certimed.errors import InputError


def same_name(name: str) -> str:
    """The form two spellings of one class name share: case, spaces, underscores and hyphens do not count."""
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


@dataclass(frozen=True)
class ClassList:
    """Class names in order, and the spellings under which the data may call them.

    Attributes:
        names: what results and prompts say, by class index.
        spellings: normalised name in the data -> class index.
    """

    names: tuple[str, ...]
    spellings: dict[str, int]

    @classmethod
    def parse(cls, entries: Sequence[str]) -> ClassList:
        """Read entries ``"name"`` or ``"name in the data=words for the prompt"``.

        Two entries with the same words merge two classes of the data into one.

        Raises:
            InputError: no entry, an empty name, or one name of the data given twice.
        """
        if isinstance(entries, str) or not entries:
            raise InputError(f"classes={entries!r} is not usable: give a sequence of class names")
        names: list[str] = []
        spellings: dict[str, int] = {}
        for entry in entries:
            # Words have no "=" in them, and folders may.
            front, sign, back = (part.strip() for part in entry.rpartition("="))
            stored, words = (front, back or front) if sign else (back, back)
            if not stored:
                raise InputError(f"classes entry {entry!r} has no name; write name or 'name in the data=words'")
            if words not in names:
                names.append(words)
            for spelling in {same_name(stored)} | ({same_name(words)} if words == stored else set()):
                if spelling in spellings:
                    raise InputError(f"classes name {stored!r} twice (case, spaces and underscores do not count)")
                spellings[spelling] = names.index(words)
        return cls(tuple(names), spellings)

    def index(self, name: str) -> int | None:
        """Class index of a name in the data, or None when no entry matches."""
        return self.spellings.get(same_name(name))

    def require(self, name: str, where: str) -> int:
        """Class index of a name in the data.

        Raises:
            InputError: no entry matches.
        """
        index = self.index(name)
        if index is None:
            raise InputError(
                f"{where} is of class {name!r}, which is none of the classes given ({', '.join(self.names)}); "
                f"add it, or map it with an entry '{name}=words'"
            )
        return index


def names_in_data(names: Sequence[str]) -> ClassList:
    """The class list of data that names its own classes, in the order given, whatever signs are in their names.

    Raises:
        InputError: an empty name, or two that differ in case, spaces and underscores only.
    """
    spellings: dict[str, int] = {}
    for index, name in enumerate(names):
        if not name.strip() or same_name(name) in spellings:
            raise InputError(f"classes name {name!r} twice, or it is empty (case, spaces and underscores do not count)")
        spellings[same_name(name)] = index
    return ClassList(tuple(name.strip() for name in names), spellings)
