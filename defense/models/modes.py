"""Temporary states of a model, put back as they were, submodule by submodule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from defense.models.adapt import logits_of

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")  # of a module


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every submodule in eval mode and call the model as one function of its pictures; then restore it.

    Inside, the model gets a copy of its pictures in the type of its weights, and gives logits in float32 at least.
    Its buffers and the tensors that its forward pass stores in attributes come back as they were.
    """
    if any(isinstance(hook, CopiedInput) for hook in model._forward_pre_hooks.values()):
        with modes_of(model):  # within another `evaluating`; torch.compile and training change modes meanwhile
            yield model
        return
    with ExitStack() as stack:
        for state in (modes_of, buffers_of, attributes_of, called_alike):
            stack.enter_context(state(model))
        yield model


@contextmanager
def modes_of(model: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode; afterwards each has the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def buffers_of(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass writes into buffers, or in their place, as a count of its calls."""
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    owned = {module: dict(module._buffers) for module in modules}
    before = {buffer: buffer.clone() for buffer in model.buffers()}
    try:
        yield
    finally:
        for module, buffers in owned.items():
            module._buffers.update(buffers)
        with torch.no_grad():
            for buffer, value in before.items():
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


@contextmanager
def attributes_of(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass stores in attributes: tensors of torch.func are dead afterwards."""
    before = {module: dict(vars(module)) for module in model.modules()}
    try:
        yield
    finally:
        for module, attributes in before.items():
            changed = [
                name
                for name, value in vars(module).items()
                if isinstance(value, Tensor) and value is not attributes.get(name)
            ]
            for name in changed:
                if name in attributes:
                    vars(module)[name] = attributes[name]
                else:
                    del vars(module)[name]


@contextmanager
def weights_of(model: nn.Module) -> Iterator[None]:
    """Put back what is written into parameters; inside they have no gradient yet."""
    before = {each: (each.detach().clone(), each.grad, each.requires_grad) for each in model.parameters()}
    for weight in before:
        weight.grad = None
    try:
        yield
    finally:
        for weight, (value, gradient, asked) in before.items():
            with torch.no_grad():
                if not torch.equal(weight, value):
                    weight.copy_(value)
            weight.grad = gradient
            weight.requires_grad_(asked)


@contextmanager
def called_alike(model: nn.Module) -> Iterator[None]:
    """Let every call see its own copy of the pictures, take the same path and return exact logits.

    The fast path of transformers is off: with a padding mask it gives other numbers than the path of gradients.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(model.register_forward_pre_hook(CopiedInput()).remove)
        stack.callback(model.register_forward_hook(exact_output).remove)
        yield


@contextmanager
def hooks_of(model: nn.Module) -> Iterator[None]:
    """Take away the hooks that were put on the model inside, whatever happens."""
    before = {(module, kind): set(getattr(module, kind)) for module in model.modules() for kind in HOOKS}
    try:
        yield
    finally:
        for (module, kind), known in before.items():
            hooks = getattr(module, kind)
            for added in set(hooks) - known:
                del hooks[added]


class CopiedInput:
    """The hook that hands a model a copy of its pictures, in the one floating type that its weights have."""

    def __call__(self, model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what the model is given instead: a network that works in place changes its own copy."""
        x, *rest = given
        types = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
        same = not x.is_floating_point() or len(types) != 1 or x.dtype in types
        return (x.clone() if same else x.to(types.pop()), *rest)


def exact_output(model: nn.Module, given: Any, output: Any) -> Any:
    """Return the logits in an output, those of half precision in float32: losses are computed there."""
    logits = logits_of(output)
    if isinstance(logits, Tensor) and logits.dtype in (torch.bfloat16, torch.float16):
        return logits.float()
    return logits


class Through:
    """The block itself, in place of torch's reentrant checkpoint, which refuses a gradient by the input alone."""

    @staticmethod
    def apply(function: Any, preserve: bool, *given: Any) -> Any:
        """Return what the block gives."""
        return function(*given)


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Let no parameter ask for a gradient, so that gradients of the input cost no more than they must."""
    asked = {parameter: parameter.requires_grad for parameter in model.parameters()}
    reentrant = checkpoint.CheckpointFunction
    model.requires_grad_(False)
    vars(checkpoint)["CheckpointFunction"] = Through
    try:
        yield model
    finally:
        vars(checkpoint)["CheckpointFunction"] = reentrant
        for parameter, requires_grad in asked.items():
            parameter.requires_grad_(requires_grad)


@contextmanager
def channels_last(model: nn.Module) -> Iterator[nn.Module]:
    """Lay the weights of convolutions out with channels last, which is faster on every device.

    The gradient of the pictures still comes back contiguous: there are attacks that take views of it.
    """
    weights = {weight: weight.data for weight in model.parameters() if weight.ndim == 4}
    hook = model.register_forward_pre_hook(lambda _, given: (given[0].flatten(1).view_as(given[0]), *given[1:]))
    try:
        for weight, data in weights.items():
            weight.data = data.to(memory_format=torch.channels_last)
        yield model
    finally:
        hook.remove()
        for weight, data in weights.items():
            weight.data = data


def bare(model: nn.Module) -> nn.Module:
    """Return the network inside nn.DataParallel, DistributedDataParallel or torch.compile; itself if in none.

    A network of TorchScript is put into a module, for it takes no hooks.
    """
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return Scripted(model) if isinstance(model, torch.jit.ScriptModule) else model
        model = inner


class Scripted(nn.Module):
    """A network of TorchScript, as a module of which it is the one part."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the network."""
        out: Tensor = self.network(x)
        return out
