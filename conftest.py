"""Gives `pytest` the benchmark options, the `cell` marker and the grid. A file-local plugin may be registered here."""

pytest_plugins = ("prunebench.pytest_plugin",)
