"""A client for the ready ServerApp `fedserver.app:app`."""

from __future__ import annotations
