"""Small standard classifiers of pictures in [0, 1]; the normalisation is their first layer.

Each takes the shape of a picture, the number of classes, and the mean and standard deviation of the training
pixels per channel, and returns logits (b, classes). Dropout slots are in place, off unless `dropout` is set.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from defense.config.choices import Activation
from defense.errors import InputError, within

Shape = tuple[int, int, int]
Layer = Callable[[], nn.Module]
Sized = Callable[[int], nn.Module]  # a layer of so many channels, or over so many pixels
ACTIVATIONS: dict[Activation, Layer] = {Activation.relu: nn.ReLU, Activation.gelu: nn.GELU}


class Normalize(nn.Module):
    """x -> (x - mean) / std, per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised pictures, same shape."""
        return (x - self.mean) / self.std


class Scale(nn.Module):
    """x -> factor x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled numbers, same shape."""
        return self.factor * x


def mlp(
    *,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hidden: Sequence[int] = (256,),
    activation: str = "relu",
    norm: bool = False,
    dropout: float = 0.0,
    scale: float = 1.0,
) -> nn.Sequential:
    """Return a multilayer perceptron; smooth with the arguments of conf/model/smooth_mlp.yaml.

    activation: relu, or gelu, which is smooth. norm: layer norm before each activation. scale: of the logits, see
    `smooth_cnn`. Raises InputError.
    """
    check_scale(scale)
    if activation not in list(Activation.__members__):
        raise InputError("model.activation", activation, f"expected one of {', '.join(Activation.__members__)}")
    layers: list[nn.Module] = [Normalize(mean, std), nn.Flatten()]
    widths = [math.prod(input_shape), *hidden]
    for inputs, outputs in itertools.pairwise(widths):
        between = ACTIVATIONS[Activation(activation)]()
        norms = [nn.LayerNorm(outputs)] if norm else []
        layers += [nn.Linear(inputs, outputs), *norms, between, nn.Dropout(dropout)]
    layers += [nn.Linear(widths[-1], classes)]
    return nn.Sequential(*layers, *([] if scale == 1 else [Scale(scale)]))


def cnn(
    *,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: int = 32,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return a plain convolutional network: three stages of 3x3 convolutions, halved between, then averaged."""
    layers = three_stages(
        input_shape[0], width, classes, dropout, norm=nn.BatchNorm2d, activation=nn.ReLU, pool=nn.MaxPool2d
    )
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), **layers))


def smooth_cnn(
    *,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: int = 32,
    groups: int = 8,
    dropout: float = 0.0,
    scale: float = 0.5,
) -> nn.Sequential:
    """Return the plain convolutional network made smooth, for derivatives through a whole training.

    Group norm before GELU stands in place of batch norm and ReLU, average pooling in place of the maximum, and the
    logits are multiplied by `scale`. groups: of channels, a divisor of `width`. Raises InputError.

    A step of the head moves the logits in proportion to scale^2. At the usual rate a scale of 0.1 learns too
    little of attacked pictures. Normalised features, or larger first weights of the head, do not mend that; a
    factor before the head is the same as a larger scale. So the default is 0.5; give a smaller one with a
    higher train.learning_rate.
    """
    check_scale(scale)
    if groups < 1 or width % groups:
        raise InputError("model.groups", groups, f"expected a divisor of model.width, {width}")
    layers = three_stages(
        input_shape[0],
        width,
        classes,
        dropout,
        norm=partial(nn.GroupNorm, groups),
        activation=nn.GELU,
        pool=nn.AvgPool2d,
    )
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), **layers, scale=Scale(scale)))


def check_scale(scale: float) -> None:
    """Raise InputError unless logits can be multiplied by `scale`."""
    within("model.scale", scale, 0 < scale < math.inf, "a number above 0")


def three_stages(
    channels: int, width: int, classes: int, dropout: float, *, norm: Sized, activation: Layer, pool: Sized
) -> dict[str, nn.Module]:
    """Return the layers of a convolutional network from normalised pictures to logits, by name."""

    def stage(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        return nn.Sequential(convolution, norm(outputs), activation())

    return {
        "stage1": stage(channels, width),
        "pool1": pool(2),
        "stage2": stage(width, 2 * width),
        "pool2": pool(2),
        "stage3": stage(2 * width, 4 * width),
        "average": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "dropout": nn.Dropout(dropout),
        "head": nn.Linear(4 * width, classes),
    }


def cifar_resnet(
    *,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    name: str,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return torchvision's ResNet `name`, from scratch, with the stem for 32x32 pictures.

    The stem is a 3x3 convolution of stride 1 without pooling, as is usual since He et al. 2016 on CIFAR.
    """
    from torchvision.models import get_model  # slow to import, and needed here alone

    network = get_model(name, num_classes=classes)
    network.conv1 = nn.Conv2d(input_shape[0], 64, kernel_size=3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Sequential(nn.Dropout(dropout), network.fc)
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network))


resnet18 = partial(cifar_resnet, name="resnet18")
resnet34 = partial(cifar_resnet, name="resnet34")
