"""Networks of torchvision, timm and Hugging Face by their names, with random weights or those of a folder on disk.

Nothing is downloaded. Pictures come in [0, 1]; each network is given them normalised. Grey pictures become colour
pictures for a network that takes colour alone, and the side of the pictures is handed on if a network wants it.
"""

from __future__ import annotations

import difflib
import inspect
import json
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from defense.data.pretrained import content_digest, quiet_transformers
from defense.errors import InputError
from defense.models.adapt import as_colour, normalize_inputs
from defense.runtime.source import TARGET

log = logging.getLogger(__name__)

Shape = tuple[int, int, int]
CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"  # of Hugging Face
NEAREST = 3  # names that an unknown one is answered with
SIZED: dict[str, Callable[[int], dict[str, Any]]] = {  # classes of torchvision that are told the side of a picture
    "VisionTransformer": lambda side: {"image_size": side},
    "MaxVit": lambda side: {"input_size": (side, side)},
}
AUXILIARY = (
    "GoogLeNet",
    "Inception3",
)  # classes of torchvision with further heads in training: none here


def torchvision(
    *, name: str, input_shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float], **arguments: Any
) -> nn.Module:
    """Return the network `name` of torchvision.models, with random weights.

    mean, std: of the pictures, per channel. Raises InputError if there is no such network.
    """
    from torchvision import models  # slow to import, and needed here alone
    from torchvision.models import get_model, get_model_builder, list_models

    known(name, list_models(module=models), "torchvision")
    made = getattr(inspect.signature(get_model_builder(name)).return_annotation, "__name__", "")
    if made in SIZED:
        arguments = SIZED[made](side(input_shape, name)) | arguments
    if made in AUXILIARY:
        arguments = {"aux_logits": False, "init_weights": True} | arguments
    model: nn.Module = get_model(name, weights=None, num_classes=classes, **arguments)
    return fitted(model, input_shape, mean, std)


def timm(
    *, name: str, input_shape: Shape, classes: int, mean: Sequence[float], std: Sequence[float], **arguments: Any
) -> nn.Module:
    """Return the network `name` of timm, with random weights; see `torchvision`."""
    needs("timm")
    from timm import create_model, list_models
    from timm.models import get_pretrained_cfg

    known(name.partition(".")[0], list_models(), "timm")
    config = get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        arguments = {"img_size": side(input_shape, name)} | arguments
    channels = input_shape[0]
    model: nn.Module = create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **arguments)
    normalize_inputs(model, mean, std, channels)
    return model


def huggingface(
    *,
    folder: str | None,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    **arguments: Any,
) -> nn.Module:
    """Return the image classifier in a folder of Hugging Face, with the weights that lie there, or random ones.

    arguments: further fields of its config; see `torchvision`. Weights that the folder lacks, or has in another
    shape, as of the head, are drawn by the seed, and the log names them. Raises InputError if the
    folder has no such model.
    """
    if folder is None:
        raise InputError("model.folder", None, f"expected a folder with {CONFIG}, as save_pretrained leaves it")
    if not (Path(folder) / CONFIG).is_file():
        raise InputError("model.folder", folder, f"no {CONFIG} there; expected a folder that a model was saved to")
    needs("transformers")
    from transformers import AutoConfig, AutoModelForImageClassification

    with quiet_transformers():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **arguments)
        config.num_labels = classes
        if hasattr(config, "image_size") and "image_size" not in arguments:
            config.image_size = side(input_shape, folder)
        try:
            model = AutoModelForImageClassification.from_config(config)
        except ValueError as error:
            kind = type(config).__name__
            raise InputError("model.folder", folder, f"{kind} is of no image classifier") from error
        if (Path(folder) / WEIGHTS).is_file():
            how = {"local_files_only": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
            model, loaded = type(model).from_pretrained(folder, config=config, **how)
            drawn = [*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])]
            if drawn:
                log.warning("%s lacks these weights, or has them in another shape: %s", folder, ", ".join(drawn))
    return fitted(model, input_shape, mean, std)


def digest_of(settings: dict[str, Any]) -> dict[str, str]:
    """Return what stands in keys for the code of a network of a library, and for its folder on disk."""
    package = LIBRARIES[str(settings[TARGET])]
    folder = settings.get("folder")
    content = {} if folder is None else {"folder": content_digest(str(folder))}
    return {package: version(package), **content}


PLACE = "defense.models.libraries"
HUGGINGFACE = f"{PLACE}.huggingface"
LIBRARIES = {  # the package whose version counts, by dotted path
    f"{PLACE}.torchvision": "torchvision",
    f"{PLACE}.timm": "timm",
    HUGGINGFACE: "transformers",
}


def statistics_of(settings: dict[str, Any]) -> dict[str, list[float]]:
    """Return the mean and standard deviation that the preprocessor of a folder of Hugging Face states, if any."""
    file = Path(str(settings.get("folder"))) / PREPROCESSOR
    if not file.is_file():
        return {}
    stated = json.loads(file.read_text(encoding="utf-8"))
    if stated.get("do_normalize", True) is False:
        return {}
    pairs = {"mean": stated.get("image_mean"), "std": stated.get("image_std")}
    return {name: values for name, values in pairs.items() if isinstance(values, list)}


def fitted(model: nn.Module, shape: Shape, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Let a network of colour pictures take normalised pictures of a shape, grey ones too, and return it."""
    normalize_inputs(model, mean, std, shape[0])
    if shape[0] == 1:
        model.register_forward_pre_hook(as_colour)
    return model


def side(shape: Shape, name: str) -> int:
    """Return the side of square pictures; raises InputError for others."""
    if shape[1] != shape[2]:
        raise InputError("model.name", name, f"takes square pictures alone, and these are {shape[1]}x{shape[2]}")
    return shape[1]


def known(name: str, names: Sequence[str], library: str) -> None:
    """Raise InputError, with the nearest names, unless a library has a network of a name."""
    if name not in names:
        nearest = difflib.get_close_matches(name, names, NEAREST, cutoff=0) or list(names)[:NEAREST]
        raise InputError("model.name", name, f"no network of {library}; the nearest are {', '.join(nearest)}")


def needs(package: str) -> None:
    """Raise InputError unless an optional package is installed."""
    if find_spec(package) is None:
        raise InputError("model", package, 'needs a package that is not installed; pip install -e ".[vision]"')
