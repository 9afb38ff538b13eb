"""The real commands where it is hard: a full disk, a store that can only be read, a path with spaces and Unicode."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from running import BIN, ROOT, environment, prunebench

SWEEP = ("sweep", "--profile", "smoke", "--datasets", "digits:size=8", "--epochs", "1", "--fine-tune-epochs", "1")
NOBODY = 65534
# Arguments: a folder to mount on, then a command. The small file system goes with its process.
FULL = """
set -e
mount -t tmpfs -o size=1500k,nr_inodes=200 tmpfs "$1"
dir=$1; shift
set +e
"$@" --store "$dir/store"
echo "code $?"
mount -o remount,size=64m "$dir"
"$@" --store "$dir/store"
echo "code $?"
find "$dir" -type f | sort
"""


def lines_of(done):
    return done.stderr.strip().splitlines()


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path):
    allowed = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True)
    if allowed.returncode != 0:
        pytest.skip(f"no file system may be mounted ({allowed.stderr.decode().strip()}); see the test with a limit")
    # Room for one network of 28 x 28 and not for three; training is announced before it is found out.
    options = [w for w in SWEEP if w != "--datasets" and w != "digits:size=8"] + ["--seeds", "0,1,2"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", FULL, "sh", str(tmp_path), str(BIN / "prunebench"), *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    codes = [line for line in done.stdout.splitlines() if line.startswith("code")]
    assert codes == ["code 2", "code 0"], done.stdout + done.stderr
    refused = [line for line in lines_of(done) if "No space left on device" in line]
    assert len(refused) == 1
    assert "--store DIR" in refused[0]
    assert "Traceback" not in done.stderr
    files = [line.rpartition("/store/")[2] for line in done.stdout.splitlines() if "/store/" in line]
    assert len(files) == 12  # six entries, nothing half written
    assert all(name.startswith("artifacts/") and "/." not in name for name in files)


def test_files_that_may_not_grow_are_one_line(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run(
        [str(BIN / "prunebench"), *SWEEP, "--store", str(tmp_path / "store")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit,
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in lines_of(done)[-1]
    assert "Traceback" not in done.stderr
    assert [f for f in (tmp_path / "store").rglob("*") if f.is_file()] == []
    again = prunebench(*SWEEP, "--store", tmp_path / "store")
    assert again.returncode == 0, again.stderr
    assert "2 cells: 2 trained" in again.stdout


@pytest.fixture
def readable():
    """A folder that everybody may read: pytest's own are their owner's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    shutil.rmtree(folder)


def unprivileged(folder, *arguments):
    """`prunebench` as somebody whom permissions bind."""
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(
        [sys.executable, "-m", "prunebench.cli", *map(str, arguments)],
        env=environment(
            PYTHONPATH=str(ROOT), HOME=str(folder), PYTHONDONTWRITEBYTECODE="1", TORCHINDUCTOR_CACHE_DIR="/tmp"
        ),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        **user,
    )


def test_a_store_that_can_only_be_read(readable):
    version = unprivileged(readable, "--version")
    if version.returncode != 0:
        pytest.skip(f"somebody without rights can't run this Python: {version.stderr.strip()[-200:]}")
    store = readable / "store"
    made = prunebench(*SWEEP, "--store", store)
    assert made.returncode == 0, made.stderr
    subprocess.run(["chmod", "-R", "a-w", str(store)], check=True)
    before = {f: (f.stat().st_mtime_ns, f.stat().st_ino) for f in store.rglob("*")}
    hit = unprivileged(readable, *SWEEP, "--store", store)
    assert hit.returncode == 0, hit.stderr
    assert "2 cells: 0 trained, 2 from the store" in hit.stdout
    for arguments, code, words in (
        ((*SWEEP, "--seeds", "7", "--store", store), 2, "can't be written and lacks what this run needs"),
        (("store", "gc", "--store", store), 2, "can't be cleaned up"),
        (("store", "ls", "--store", store), 0, "2 entries"),
        (("store", "verify", "--store", store), 0, "2 entries are whole"),
    ):
        done = unprivileged(readable, *arguments)
        assert done.returncode == code, done.stderr
        assert len(lines_of(done)) == 1, done.stderr
        assert words in done.stderr
    assert {f: (f.stat().st_mtime_ns, f.stat().st_ino) for f in store.rglob("*")} == before


def test_a_path_with_spaces_and_unicode(tmp_path):
    store = tmp_path / "räume und λ 'zwei' 🧠" / "store"
    first = prunebench(*SWEEP, "--store", store)
    assert first.returncode == 0, first.stderr
    again = prunebench(*SWEEP, PRUNEBENCH_STORE=str(store))
    assert "2 cells: 0 trained, 2 from the store" in again.stdout
    listed = json.loads(prunebench("store", "ls", "--json", "--store", store).stdout)["entries"]
    assert len(listed) == 2
    path = prunebench("store", "path", listed[0]["key"], PRUNEBENCH_STORE=str(store))
    assert path.stdout == listed[0]["path"] + "\n"
    assert (Path(listed[0]["path"]) / "meta.json").is_file()
    assert prunebench("store", "verify", "--store", store).returncode == 0
    assert prunebench("store", "gc", "--store", store).returncode == 0
