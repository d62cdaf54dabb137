"""Pictures and tables for people: what was certified, made visible."""
