"""A Hugging Face image classifier from a folder on disk, as `save_pretrained` writes it; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunebench.errors import UsageError, reason
from prunebench.sources import Source
from prunebench.sources.zoo import package


def build(kind: str, folder: str) -> Source:
    """The model of a folder with config.json and model.safetensors; with config.json alone, its weights are random."""
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        where = "is no folder here" if not path.is_dir() else "has no config.json"
        raise UsageError(f"hf:{folder} {where}; download the model first (nothing is fetched) and give its folder")
    transformers = package("transformers")
    trained = any(path.glob("*.safetensors"))
    if not trained and any(path.glob("*.bin")):
        raise UsageError(f"hf:{folder} holds pickled weights only; save it with save_pretrained(…) as safetensors")
    classifiers: Any = transformers.AutoModelForImageClassification
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        if trained:
            model = classifiers.from_pretrained(path, local_files_only=True, use_safetensors=True)
        else:
            model = classifiers.from_config(transformers.AutoConfig.from_pretrained(path, local_files_only=True))
    except Exception as error:
        raise UsageError(
            f"hf:{folder} is no image classifier that transformers reads: {reason(error)[:200]}"
        ) from error
    return Source(f"hf:{folder}", model, _sample(model.config), trained)


def _sample(config: Any) -> tuple[int, ...] | None:
    size, channels = getattr(config, "image_size", 224), getattr(config, "num_channels", 3)
    size = (size, size) if isinstance(size, int) else size
    good = isinstance(size, (tuple, list)) and len(size) == 2 and isinstance(channels, int)
    return (channels, int(size[0]), int(size[1])) if good else None
