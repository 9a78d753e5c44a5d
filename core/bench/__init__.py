"""Measurements of speed: this package beside its peers, in one process, by paired repeats."""
