"""Your own images: PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, as a folder or a tar of one."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from prunebench.datasets.base import Dataset, Split, check_size, make
from prunebench.datasets.places import PLACES
from prunebench.errors import DatasetMissing, UsageError
from prunebench.registry import dataset
from prunebench.untrusted import plain_line

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm"}
_Entry = tuple[str, str, str, bytes]  # split, class, name, file content


@dataset("imagefolder")
def imagefolder(root: Path, path: str = "", size: int | None = None) -> Dataset:
    """RGB images of `imagefolder:PATH[:size=N]`; without a size they must all have the same shape."""
    if not path:
        raise UsageError("dataset 'imagefolder' needs a path; write imagefolder:PATH with PATH/train/CLASS/*.jpg in it")
    name = f"imagefolder:{path}" + (f":size={size}" if size else "")
    return _read(name, Path(path), check_size(size, name) if size is not None else None)


@dataset("cifar10_jpeg")
def cifar10_jpeg(root: Path) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009) re-encoded as JPEG, 32×32×3: lossy, so never labelled cifar10."""
    return _read("cifar10_jpeg", root / PLACES["cifar10_jpeg"], 32)


def _read(name: str, path: Path, size: int | None) -> Dataset:
    if not path.exists():
        raise DatasetMissing(f"dataset {name!r} is not at {path}; put it there, or name its folder with --data DIR")
    entries: Iterable[_Entry] = _from_folder(path) if path.is_dir() else _from_tar(path)

    def decode(entry: _Entry) -> tuple[str, str, np.ndarray]:
        split, label, file, content = entry
        try:
            with Image.open(io.BytesIO(content)) as image:
                rgb = image.convert("RGB")
                return split, label, np.asarray(ImageOps.fit(rgb, (size, size)) if size else rgb)
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise UsageError(f"dataset {name!r}: {file} is not a readable image ({plain_line(error)})") from error

    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(decode, entries))
    labels = sorted({label for split, label, _ in decoded if split == "train"})
    strange = sorted({label for _, label, _ in decoded} - set(labels))
    if not labels or not any(split == "test" for split, _, _ in decoded):
        raise UsageError(f"dataset {name!r}: {path} needs train/CLASS/*.jpg and test/CLASS/*.jpg")
    if strange:
        raise UsageError(f"dataset {name!r}: class {strange[0]!r} is in test but not in train")
    shapes = {pixels.shape for _, _, pixels in decoded}
    if len(shapes) > 1:
        raise UsageError(
            f"dataset {name!r}: images differ in size ({len(shapes)} sizes); add :size=N, for example :size=64"
        )
    return make(name, len(labels), *(_split(decoded, labels, part) for part in ("train", "test")))


def _split(decoded: list[tuple[str, str, np.ndarray]], labels: list[str], part: str) -> Split:
    index = {label: i for i, label in enumerate(labels)}
    members = [(index[label], pixels) for split, label, pixels in decoded if split == part]
    images = torch.from_numpy(np.stack([pixels for _, pixels in members])).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor([label for label, _ in members]))


def _from_folder(path: Path) -> Iterator[_Entry]:
    for part in ("train", "test"):
        for file in sorted((path / part).glob("*/*")):
            if file.suffix.lower() in _SUFFIXES:
                yield part, file.parent.name, str(file), file.read_bytes()


def _from_tar(path: Path) -> Iterator[_Entry]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts[-3:]
                if len(parts) == 3 and parts[0] in ("train", "test") and Path(parts[2]).suffix.lower() in _SUFFIXES:
                    content = archive.extractfile(member)
                    if content is not None:
                        yield parts[0], parts[1], member.name, content.read()
    except tarfile.TarError as error:
        raise UsageError(
            f"dataset at {path} is neither a folder nor a readable tar file ({' '.join(str(error).split())})"
        ) from error
