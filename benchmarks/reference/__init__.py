"""Independent rewrites of published procedures, slow and plain on purpose: what the package is tested against."""
