"""What is measured, one command each; nothing here is imported by the package."""
