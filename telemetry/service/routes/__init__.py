"""The HTTP interface, one module a noun; each builds its router from what it is given."""

from __future__ import annotations
