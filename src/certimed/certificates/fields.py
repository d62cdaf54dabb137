"""Checked reading of certificate JSON: a field of the wrong type is named, never guessed."""

from __future__ import annotations

import json
from typing import Any

from certimed.errors import InputError

_TOO_LARGE = 1 << 1000  # whole numbers beyond the range of floats


class Fields:
    """Typed access to one JSON object.

    Args:
        data: the object.
        what: words for error messages, e.g. ``"class certificate"``.
    """

    def __init__(self, data: object, what: str) -> None:
        if not isinstance(data, dict):
            raise InputError(f"a {what} must be a JSON object, not {type(data).__name__}")
        self._data = data
        self._what = what

    @classmethod
    def parse(cls, text: str, what: str) -> Fields:
        """Read a JSON text; raises InputError if it is not JSON."""
        try:
            return cls(json.loads(text), what)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
            raise InputError(f"the {what} is not valid JSON: {error}") from error

    @property
    def data(self) -> dict[str, Any]:
        """The object itself."""
        return self._data

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._data

    def get(self, name: str) -> Any:
        """Raw value; raises InputError if the field is missing."""
        if name not in self._data:
            raise InputError(f"the {self._what} lacks the field {name!r}")
        return self._data[name]

    def _typed(self, name: str, ok: bool, wanted: str) -> None:
        if not ok:
            raise InputError(f"field {name!r} of the {self._what} must be {wanted}, not {self._data[name]!r:.80}")

    def integer(self, name: str) -> int:
        """A whole number (a boolean is none)."""
        value = self.get(name)
        self._typed(name, isinstance(value, int) and not isinstance(value, bool), "a whole number")
        return int(value)

    def number(self, name: str) -> float:
        """A finite number."""
        value = self.get(name)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        self._typed(name, good and abs(value) < _TOO_LARGE, "a finite number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A finite number or null."""
        return None if self.get(name) is None else self.number(name)

    def boolean(self, name: str) -> bool:
        """true or false."""
        value = self.get(name)
        self._typed(name, isinstance(value, bool), "true or false")
        return bool(value)

    def string(self, name: str) -> str:
        """A string."""
        value = self.get(name)
        self._typed(name, isinstance(value, str), "a string")
        return str(value)

    def optional_string(self, name: str) -> str | None:
        """A string or null."""
        return None if self.get(name) is None else self.string(name)

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self.get(name)
        good = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        self._typed(name, good, "a list of whole numbers")
        return tuple(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        found = self.optional_numbers(name)
        self._typed(name, None not in found, "a list of finite numbers")
        return tuple(float(one) for one in found if one is not None)

    def optional_numbers(self, name: str) -> tuple[float | None, ...]:
        """A list of finite numbers and nulls."""
        value = self.get(name)
        self._typed(name, isinstance(value, list), "a list of finite numbers or nulls")
        each = Fields({str(place): one for place, one in enumerate(value)}, f"list {name!r} of the {self._what}")
        return tuple(each.optional_number(str(place)) for place in range(len(value)))

    def mapping(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        value = self.get(name)
        self._typed(name, isinstance(value, dict), "an object")
        return dict(value)

    def strings(self, name: str) -> dict[str, str]:
        """A JSON object of strings."""
        value = self.mapping(name)
        self._typed(name, all(isinstance(one, str) for one in value.values()), "an object of strings")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.get(name)
        self._typed(name, isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of strings")
        return tuple(value)

    def records(self, name: str) -> tuple[dict[str, Any], ...]:
        """A list of JSON objects."""
        value = self.get(name)
        self._typed(name, isinstance(value, list) and all(isinstance(v, dict) for v in value), "a list of objects")
        return tuple(value)

    def shares(self, name: str) -> dict[str, dict[str, float]]:
        """An object of objects of numbers."""
        parts = {part: Fields(given, f"{name} of the {self._what}") for part, given in self.mapping(name).items()}
        return {part: {one: given.number(one) for one in given.data} for part, given in parts.items()}

    def expect(self, name: str, wanted: str) -> None:
        """The field must equal ``wanted`` (used for schema names)."""
        value = self.get(name)
        self._typed(name, value == wanted, repr(wanted))
