"""The tensor library: every part of a stage, and the chain that joins them."""

from __future__ import annotations
