"""Stand-in for the package `comfy`."""
