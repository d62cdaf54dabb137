"""Scripts that train the small models certimed ships or studies; not part of the installed package."""
