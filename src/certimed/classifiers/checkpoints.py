"""Networks that a library builds by name, filled from a checkpoint that says how large their heads are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from certimed.errors import ModelError
from certimed.models.fitting import Fit, fit, quiet_build, unwrapped
from certimed.models.sources import brief
from certimed.models.weights import Weights


def filled(
    build: Callable[..., nn.Module],
    weights: Weights,
    *,
    ends: Callable[[nn.Module], tuple[str, str]],
    defaults: tuple[int, int],
    names: tuple[str, str],
    aside: Sequence[str] = (),
) -> tuple[nn.Module, Fit, int, int]:
    """The network with as many classes and channels as the checkpoint has, filled tensor by tensor.

    Args:
        build: makes the network from keywords.
        weights: of the checkpoint.
        ends: of a network the names of the weights of its last and its first layer.
        defaults: classes and channels of a network built without keywords.
        names: keywords of classes and channels; "" where it cannot be chosen.
        aside: see :func:`certimed.models.fit`.

    Returns:
        network, what filled it, classes and channels.

    Raises:
        ModelError: a head or a first layer is missing, or the weights do not fit.
    """
    network = built(build)
    head, first = ends(network)
    state, _, _ = unwrapped(weights, network.state_dict())
    absent = [name for name in (head, first) if name not in state]
    if absent:
        held = ", ".join(list(weights.tensors)[:3])
        raise ModelError(
            f"the weights {weights.source} have no {absent[0]}, so they are of another architecture than "
            f"{type(network).__name__}, or of an encoder without a head (they hold {held}, ...); check the name"
        )
    found = (int(state[head].shape[0]), int(state[first].shape[1]))
    changed = {name: size for name, size, was in zip(names, found, defaults) if name and size != was}
    if changed:
        network = built(build, **changed)
    advice = "check the architecture's name, and leave out its pretrained tag"
    done = fit(network, weights, advice=advice, aside=aside, normalisation=True)
    return network, done, *found


def built(build: Callable[..., nn.Module], **settings: Any) -> nn.Module:
    """A network, built without touching the global random generator; ModelError where the library refuses."""
    try:
        with quiet_build():
            return build(**settings).eval()
    # Constructors refuse arguments each in their own way.
    except Exception as error:
        raise ModelError(f"the network cannot be built ({type(error).__name__}: {brief(error)})") from error
