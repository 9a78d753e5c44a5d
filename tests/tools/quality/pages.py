"""The written pages with their generated parts."""

from __future__ import annotations

import json
from pathlib import Path

from .blocks import replaced
from .cards import cards
from .ledger import Ledger
from .models import Bundled
from .tables import quality_tables

ROOT = Path(__file__).resolve().parents[3]
JSON, PEERS = ROOT / "docs" / "quality.json", ROOT / "docs" / "peers.json"


def pages(root: Path, models: list[Bundled], ledger: Ledger, peers: Path) -> dict[Path, str]:
    """What README.md and core/weights/README.md should be.

    Args:
        root: of the checkout.
        models: all that are bundled.
        ledger: the figures.
        peers: the figures of peers; the file need not be there.

    Raises:
        ValueError: a page without the comments that its part stands between.
    """
    beside = json.loads(peers.read_text(encoding="utf-8")) if peers.is_file() else None
    contents = {
        root / "README.md": ("quality", quality_tables(ledger, beside)),
        root / "core" / "weights" / "README.md": ("cards", cards(models, ledger)),
    }
    wanted = {}
    for path, (name, content) in contents.items():
        try:
            wanted[path] = replaced(path.read_text(encoding="utf-8"), name, content)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
    return wanted
