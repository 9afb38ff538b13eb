"""`prunebench store ls|verify|gc|path`: what the store of checkpoints holds, whether it is whole, what may go."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunebench import settings
from prunebench.commands.options import command
from prunebench.commands.output import emit, tell
from prunebench.commands.run import add_cell, asked_for
from prunebench.errors import UsageError

if TYPE_CHECKING:
    from prunebench.cell import Case
    from prunebench.store import Store
    from prunebench.store.catalog import Entry
    from prunebench.store.upkeep import Trouble

SHORTEST_KEY = 4  # of a key's 32 digits that `path` takes
_HOUR, _DAY = 3600.0, 86400.0


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parent = commands.add_parser("store", help="the store of checkpoints: what it holds, is it whole, what may go")
    actions = parent.add_subparsers(title="actions", required=True, metavar="ACTION", parser_class=type(parent))

    listing = _action(actions, "ls", "every entry: name, status, validation accuracy, bytes, age", _ls)
    verify = _action(actions, "verify", "read every digest again, set damaged entries aside; exit code 1 then", _verify)
    what = "remove what kills left behind and what was set aside; entries where asked"
    clean = _action(actions, "gc", what, _gc, "--dry-run", "--older-than 30")
    clean.add_argument("--older-than", metavar="DAYS", help="entries and unfinished trainings that are older, too")
    clean.add_argument("--unreachable", action="store_true", help="entries of other revisions of training, too")
    what = "the folder of a cell's entry; exit code 1 where it isn't stored"
    path = _action(actions, "path", what, _path, "--model lenet5 --criterion l1 --sparsity 0.9")
    path.add_argument("key", nargs="?", help=f"instead of options: a key, or its first digits, at least {SHORTEST_KEY}")
    add_cell(path)

    for action in (verify, clean):
        action.add_argument("--dry-run", action="store_true", help="say it, change nothing")
    for action in (listing, verify, clean):
        action.add_argument(
            "--store", metavar="DIR", help="folder of checkpoints; default PRUNEBENCH_STORE or .prunebench/store"
        )


def _action(actions: Any, name: str, help: str, run: Any, *examples: str) -> argparse.ArgumentParser:
    lines = [f"prunebench store {name} {example}".rstrip() for example in examples or ("", "--json")]
    return command(actions, name, help, run, lines)


def _store(options: argparse.Namespace) -> Store:
    from prunebench.store import Store

    store = Store(settings.store(options.store, settings.project_root()))
    if store.root.is_file():
        raise UsageError(f"the store at {store.root} is a file; name a folder with --store DIR")
    return store


def _ls(options: argparse.Namespace) -> int:
    from prunebench.store.catalog import entries_of

    store = _store(options)
    gc.disable()  # 100,000 rows hold no cycles: looking for some would take a third of the time
    try:
        found = entries_of(store)
        if options.json:
            emit(options, entries=[{**e._asdict(), "path": str(store.path(e.key))} for e in found])
            return 0
        if found:
            print("\n".join(_table(found)))
    finally:
        gc.enable()
    _say(f"{_count(len(found), 'entry', 'entries')}, {_bytes(sum(e.bytes for e in found))} in {store.root}")
    return 0


def _table(found: Sequence[Entry]) -> list[str]:
    width = max(4, *(len(e.name) for e in found))
    now = time.time()
    lines = [f"{'key':12}  {'name':{width}}  {'status':10}  {'validation':>10}  {'bytes':>13}  {'age':>6}"]
    for key, name, _, status, accuracy, size, created, _, _ in found:
        told = "-" if accuracy is None else f"{100 * accuracy:.2f} %"
        lines.append(f"{key[:12]}  {name:{width}}  {status:10}  {told:>10}  {size:13,}  {_age(now - created):>6}")
    return lines


def _age(seconds: float) -> str:
    if seconds < 60:
        return "now"  # or later than now: the clock was put back
    for limit, unit, name in ((_HOUR, 60.0, "min"), (_DAY, _HOUR, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / _DAY:.0f} d"


def _verify(options: argparse.Namespace) -> int:
    from prunebench.store.upkeep import verify

    store = _store(options)
    whole, troubles = 0, list[Any]()
    for key, trouble in verify(store, options.dry_run):
        if trouble is None:
            whole += 1
        else:
            troubles.append((key, trouble))
            print(f"{key}  {_told(trouble, options.dry_run)}", flush=True)
    told = [_count(whole, "entry is whole", "entries are whole")]
    for what in ("damaged", "newer", "unreadable"):
        if number := sum(t.what == what for _, t in troubles):
            told.append(f"{number} {what}")
    if options.json:
        found = [{"key": key, "what": t.what, "reason": t.reason} for key, t in troubles]
        emit(options, whole=whole, troubles=found, dry_run=options.dry_run)
    _say(f"{', '.join(told)}; {store.root}")
    return 1 if any(t.what != "newer" for _, t in troubles) else 0


def _told(trouble: Trouble, dry_run: bool) -> str:
    aside = "would be set aside" if dry_run else "set aside"
    return f"damaged, {aside}: {trouble.reason}" if trouble.what == "damaged" else f"{trouble.what}: {trouble.reason}"


def _gc(options: argparse.Namespace) -> int:
    from prunebench.pipeline import REVISION
    from prunebench.store.upkeep import clean

    store = _store(options)
    older_than = None if options.older_than is None else _days(options.older_than)
    gone = clean(store, older_than, options.unreachable, REVISION, options.dry_run)
    for one in gone:
        print(f"{one.path.relative_to(store.root)}  {_bytes(one.bytes)}  {one.why}")
    if options.json:
        emit(options, gone=[{"path": o.path, "bytes": o.bytes, "why": o.why} for o in gone], dry_run=options.dry_run)
    verb = "would go" if options.dry_run else "removed"
    _say(f"{_count(len(gone), 'leftover', 'leftovers')}, {_bytes(sum(o.bytes for o in gone))} {verb}; {store.root}")
    return 0


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0.0 <= days < float("inf"):
        raise UsageError(f"--older-than {text!r} is no number of days; give one of at least 0, such as 30")
    return days


def _path(options: argparse.Namespace) -> int:
    store = _store(options)
    keys = [_completed(store, options.key)] if options.key is not None else _keys(options, store, asked_for(options))
    for key in keys:
        print(store.path(key))
    missing = [key for key in keys if key not in store]
    if options.json:
        emit(options, entries=[{"key": key, "path": store.path(key), "stored": key in store} for key in keys])
    for key in missing:
        _say(f"{key} is not stored yet")
    return 1 if missing else 0


def _keys(options: argparse.Namespace, store: Store, cases: Sequence[Case]) -> list[str]:
    from prunebench.pipeline import Lab, key_of

    lab = Lab(store, settings.data(options.data, settings.project_root()))
    return [key_of(case.cell, lab.content(case.cell)) for case in cases]


def _completed(store: Store, given: str) -> str:
    """The whole key of what may be its first digits; UsageError where none or several have them."""
    wanted = given.lower()
    if len(wanted) < SHORTEST_KEY or not set(wanted) <= set("0123456789abcdef"):
        raise UsageError(f"key {given!r} can't be one; give at least {SHORTEST_KEY} of its 32 hexadecimal digits")
    found = [key for key in store.keys() if key.startswith(wanted)]  # noqa: SIM118 - it is no mapping
    if len(found) != 1:
        several = f"{len(found)} entries begin with" if found else "no entry begins with"
        raise UsageError(f"{several} {given!r} in {store.root}; `prunebench store ls` lists their keys")
    return found[0]


def _bytes(number: float) -> str:
    return f"{number:,.0f} bytes" if number < 1e6 else f"{number / 1e6:,.1f} MB"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _say(text: str) -> None:
    tell(f"prunebench: {text}")
