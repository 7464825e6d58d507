"""``python -m fedserver`` is ``fedserver``."""

from __future__ import annotations

from fedserver.cli import main

main()
