"""Small standard classifiers of pictures in [0, 1]; the normalisation is their first layer.

Each takes the shape of a picture, the number of classes, and the mean and standard deviation of the training
pixels per channel, and returns logits (b, classes). Dropout slots are in place, off unless `dropout` is set.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


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


def mlp(
    *,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hidden: Sequence[int] = (256,),
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return a multilayer perceptron with ReLU."""
    layers: list[nn.Module] = [Normalize(mean, std), nn.Flatten()]
    widths = [math.prod(input_shape), *hidden]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


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

    def stage(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(
        OrderedDict(
            normalize=Normalize(mean, std),
            stage1=stage(input_shape[0], width),
            pool1=nn.MaxPool2d(2),
            stage2=stage(width, 2 * width),
            pool2=nn.MaxPool2d(2),
            stage3=stage(2 * width, 4 * width),
            average=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            head=nn.Linear(4 * width, classes),
        )
    )


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
