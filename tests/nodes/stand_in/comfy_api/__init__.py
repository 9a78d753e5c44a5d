"""Stand-in for the package `comfy_api`."""
