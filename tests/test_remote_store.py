"""A store at a URL: published there, fetched and checked, the first writer wins, and plain words when it fails."""

from __future__ import annotations

import sys
import uuid

import pytest
import torch

from prunebench import settings
from prunebench.errors import UsageError
from prunebench.remote_store import MirroredStore, mirror_folder, open_store
from prunebench.store import Store, StoreError

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed; pip install 'prunebench[remote]'")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

KEY = "ab" + "0" * 30
STATE = {"w": torch.arange(12.0).view(3, 4)}
META = {"status": "ok", "reason": None, "accuracy": 0.5}
SPEC = {"kind": "dense", "seed": 0}


class Bucket(MemoryFileSystem):
    """An object store without a network: whole objects, exclusive creation; counts requests, refuses where told to."""

    protocol = "bucket"
    store: dict = {}
    pseudo_dirs = [""]
    requests: list = []
    refuse: tuple = ()
    before_create = None

    def _count(self, what, path):
        self.requests.append((what, path))
        if what in self.refuse:
            raise PermissionError(13, "Access Denied")

    def cat_file(self, path, **options):
        self._count("read", path)
        return super().cat_file(path, **options)

    def pipe_file(self, path, value, mode="overwrite", **options):
        self._count("write", path)
        if mode == "create" and type(self).before_create:
            type(self).before_create()
        return super().pipe_file(path, value, mode=mode, **options)


@pytest.fixture(params=["bucket", "memory", "file"])
def url(request, tmp_path, monkeypatch):
    monkeypatch.setattr(Bucket, "requests", [])
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    return f"file://{tmp_path}/there" if request.param == "file" else f"{request.param}://{uuid.uuid4().hex}/store"


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(Bucket, "requests", [])
    monkeypatch.setattr(Bucket, "refuse", ())
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    return f"bucket://{uuid.uuid4().hex}/store"


def there(url):
    files, base = fsspec.core.url_to_fs(url)
    return files, sorted(path for path in files.find(base))


def test_what_one_machine_makes_another_finds(url, tmp_path):
    one, two = MirroredStore(url, tmp_path / "one"), MirroredStore(url, tmp_path / "two")
    assert two.get(KEY) is two.peek(KEY) is None
    assert KEY not in two
    made = one.put(KEY, SPEC, META, STATE)
    assert KEY in two
    assert two.peek(KEY) == made.meta
    assert not (tmp_path / "two").exists(), "looking fetches no weights"
    got = two.get(KEY)
    assert got.meta == made.meta
    assert torch.equal(got.state["w"], STATE["w"])
    assert Store(tmp_path / "two").get(KEY).meta == made.meta, "the mirror is a store of its own"
    assert [path.rpartition("/")[2] for path in there(url)[1]] == [f"{made.meta['digest']}.safetensors", "meta.json"]


def test_an_entry_without_weights(url, tmp_path):
    MirroredStore(url, tmp_path / "one").put(KEY, SPEC, {"status": "diverged", "reason": "NaN"}, None)
    got = MirroredStore(url, tmp_path / "two").get(KEY)
    assert (got.state, got.meta["status"]) == (None, "diverged")


def test_the_first_writer_wins_and_the_second_takes_its_entry(url, tmp_path):
    one, two = MirroredStore(url, tmp_path / "one"), MirroredStore(url, tmp_path / "two")
    first = one.put(KEY, SPEC, META, STATE)
    second = two.put(KEY, SPEC, {**META, "accuracy": 0.9}, {"w": STATE["w"] + 1})
    assert second.meta == first.meta
    assert torch.equal(second.state["w"], STATE["w"])
    assert Store(tmp_path / "two").get(KEY).meta == first.meta
    assert len(there(url)[1]) == 2


def test_two_that_publish_at_the_same_moment_end_with_one(bucket, tmp_path, monkeypatch):
    one, two = MirroredStore(bucket, tmp_path / "one"), MirroredStore(bucket, tmp_path / "two")

    def other():
        monkeypatch.setattr(Bucket, "before_create", None)
        two.put(KEY, SPEC, {**META, "accuracy": 0.9}, {"w": STATE["w"] + 1})

    monkeypatch.setattr(Bucket, "before_create", other)
    made = one.put(KEY, SPEC, META, STATE)
    assert made.meta["accuracy"] == 0.9
    assert torch.equal(made.state["w"], STATE["w"] + 1)
    assert MirroredStore(bucket, tmp_path / "three").get(KEY).meta == made.meta


def test_what_was_published_only_here_is_published_there_when_it_is_used(url, tmp_path):
    Store(tmp_path / "one").put(KEY, SPEC, META, STATE)  # killed before it reached the URL
    one = MirroredStore(url, tmp_path / "one")
    assert KEY not in one, "no use to others yet"
    assert one.get(KEY) is not None
    assert KEY in MirroredStore(url, tmp_path / "two")


def test_an_entry_here_gives_way_to_the_one_there(url, tmp_path):
    Store(tmp_path / "one").put(KEY, SPEC, META, STATE)
    first = MirroredStore(url, tmp_path / "two").put(KEY, SPEC, {**META, "accuracy": 0.9}, STATE)
    assert MirroredStore(url, tmp_path / "one").get(KEY).meta == first.meta


def spoil(files, path, content):
    files.pipe_file(path, content)


DAMAGE = {
    "truncated weights": lambda files, weights, meta: spoil(files, weights, files.cat_file(weights)[:-3]),
    "missing weights": lambda files, weights, meta: files.rm_file(weights),
    "truncated meta": lambda files, weights, meta: spoil(files, meta, files.cat_file(meta)[:30]),
    "empty meta": lambda files, weights, meta: spoil(files, meta, b""),
    "edited meta": lambda files, weights, meta: spoil(files, meta, files.cat_file(meta).replace(b"0.5", b"0.7")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_there_is_found_counted_and_replaced(url, tmp_path, damage):
    MirroredStore(url, tmp_path / "one").put(KEY, SPEC, META, STATE)
    files, (weights, meta) = there(url)
    damage(files, weights, meta)
    two = MirroredStore(url, tmp_path / "two")
    assert two.get(KEY) is None
    assert two.set_aside == 1
    assert KEY not in two
    two.put(KEY, SPEC, META, STATE)
    assert torch.equal(MirroredStore(url, tmp_path / "three").get(KEY).state["w"], STATE["w"])


def test_damage_here_is_fetched_again(url, tmp_path):
    one = MirroredStore(url, tmp_path / "one")
    one.put(KEY, SPEC, META, STATE)
    path = one.path(KEY) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(one.get(KEY).state["w"], STATE["w"])
    assert one.set_aside == 1


def test_a_hit_costs_one_request_once(bucket, tmp_path):
    one = MirroredStore(bucket, tmp_path / "one")
    one.put(KEY, SPEC, META, STATE)
    again = MirroredStore(bucket, tmp_path / "one")
    Bucket.requests.clear()
    for _ in range(3):
        assert again.get(KEY) is not None
    assert [what for what, _ in Bucket.requests] == ["read"]


def test_a_bucket_that_only_serves_serves(bucket, tmp_path, monkeypatch):
    MirroredStore(bucket, tmp_path / "one").put(KEY, SPEC, META, STATE)
    Store(tmp_path / "two").put("cd" + "0" * 30, SPEC, META, STATE)
    monkeypatch.setattr(Bucket, "refuse", ("write",))
    two = MirroredStore(bucket, tmp_path / "two")
    assert two.get(KEY) is not None
    assert two.get("cd" + "0" * 30) is not None, "what is here serves, published or not"
    with pytest.raises(StoreError, match="Access Denied") as error:
        two.put("ef" + "0" * 30, SPEC, META, STATE)
    assert "\n" not in str(error.value)
    assert bucket in str(error.value)


def test_a_url_out_of_reach_serves_what_is_here_and_says_so_for_the_rest(bucket, tmp_path, monkeypatch):
    one = MirroredStore(bucket, tmp_path / "one")
    one.put(KEY, SPEC, META, STATE)
    monkeypatch.setattr(Bucket, "refuse", ("read", "write"))
    again = MirroredStore(bucket, tmp_path / "one")
    assert again.get(KEY) is not None
    with pytest.raises(StoreError, match="--store DIR"):
        again.get("cd" + "0" * 30)


def test_a_folder_is_a_folder(tmp_path):
    assert type(open_store(str(tmp_path))) is Store
    assert settings.store_place("~/here", tmp_path).startswith("/")
    assert settings.store_place("s3://bucket/store", tmp_path) == "s3://bucket/store"
    with pytest.raises(UsageError, match="is a URL, and this needs a folder"):
        settings.store("s3://bucket/store", tmp_path)


def test_urls_are_mirrored_apart(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert mirror_folder("s3://a/b").parent == tmp_path / "prunebench" / "mirrors"
    assert mirror_folder("s3://a/b") != mirror_folder("s3://a/c")


def test_without_fsspec_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'prunebench\[remote\]'"):
        open_store("s3://bucket/store")


def test_an_unknown_kind_of_url_is_named():
    with pytest.raises(UsageError, match="unknown kind of store 'nonsense://'"):
        open_store("nonsense://bucket/store")
