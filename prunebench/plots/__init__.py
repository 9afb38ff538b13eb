"""Plots from saved runs: numbers first, as a CSV beside every image, and an image only where its numbers changed.

Each plot is two pure functions: runs to numbers (pandas alone), and numbers to a matplotlib figure. Matplotlib is
imported when something has to be drawn, and never through pyplot, so a user's own settings stay as they are.
"""

from __future__ import annotations

from prunebench.plots.files import plots_of, write_plots

__all__ = ["plots_of", "write_plots"]
