"""Results in files for other programs: one file a format, one registry a kind."""
