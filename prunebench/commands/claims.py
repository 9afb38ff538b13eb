"""`prunebench claims [RUN…]`: judges the registered claims by saved runs and writes results/claims.md."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from prunebench import settings
from prunebench.commands import options as shared
from prunebench.commands.output import check_format, emit, show, show_table

_EXAMPLES = ["prunebench claims", "prunebench claims mnist --format csv", "prunebench claims --json"]


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    help = "judge the registered claims by saved runs, write results/claims.md"
    more = "A refuted claim is a result: the exit code is 0."
    claims = shared.command(commands, "claims", help, run, _EXAMPLES, more)
    shared.add_runs(claims, "what to print verdicts from; none means all")
    shared.add_format(claims)
    shared.add_results(claims)


def run(options: argparse.Namespace) -> int:
    """Judge, write and print; returns the exit code."""
    from prunebench.claims import claims_table, judge
    from prunebench.claims.files import MISSING, commands_text, write_claims
    from prunebench.runs import all_and_chosen

    check_format(options.format)
    results = settings.results(options.results)
    everything, chosen = all_and_chosen(results / "runs", options.runs)
    verdicts = judge(chosen)
    write_claims(everything, results)
    if options.json:
        emit(options, verdicts=[asdict(one) for one in verdicts])
    elif options.format in (None, "github"):
        show_table(claims_table(verdicts).drop(columns=[MISSING]), options.format)
        show(commands_text(verdicts), end="")
    else:
        show_table(claims_table(verdicts), options.format)
    return 0
