"""The other side of ``export.py``: a cursor, handed to ``csv.writer``. Imports nothing of ours.

python benchmarks/_bare_export.py URL QUERY FILE
"""

from __future__ import annotations

import csv
import sqlite3
import sys
from pathlib import Path


def main(url: str, query: str, path: str) -> None:
    """Write the rows of the query."""
    with Path(path).open("w", encoding="utf-8", newline="") as out:
        if url.startswith("sqlite"):
            database = sqlite3.connect(url.removeprefix("sqlite:///"))
            csv.writer(out).writerows(database.execute(query))
            return
        import psycopg

        with psycopg.connect(url) as connection, connection.cursor("bare") as cursor:
            cursor.itersize = 1000
            csv.writer(out).writerows(cursor.execute(query))


if __name__ == "__main__":
    main(*sys.argv[1:])
