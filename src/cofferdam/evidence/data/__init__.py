"""Checks, clocks, themes and frameworks as files. Not here: reading them (evidence.catalogue)."""
