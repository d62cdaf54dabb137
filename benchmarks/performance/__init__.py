"""Everything the package claims about cost, measured side by side with the published loops; see ``__main__``."""
