"""One self-contained page of everything that saved runs say: it opens from a file, asks no network for anything."""

from __future__ import annotations

from prunebench.report.page import page, write_report

__all__ = ["page", "write_report"]
