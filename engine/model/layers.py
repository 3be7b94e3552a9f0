"""Which dropout layers are live: all of them, the last one, or those that the user names.

A network of T masks is a sample of the posterior over the weights behind its live dropout. With `head`, or some layers
only, the rest of the network counts as known: T passes are cheaper, and see less of what the model does not know.
A layer keeps its index, and so its masks, whatever others are live.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.probe import Probe


def choose_layers(probe: Probe, wanted: Literal["all", "head"] | Sequence[str]) -> Probe:
    """The probe with only the wanted layers live.

    Args:
        wanted: `all`; `head`: the last one in the order of execution; or names of modules, each for itself and for
            everything inside it.

    Raises:
        ConfigError: a name that no dropout has.
    """
    if wanted == "all" or not probe.layers:
        return probe
    if wanted == "head":
        chosen = {probe.layers[-1].index}
    else:
        chosen = {index for name in wanted for index in _called(name, probe)}
    return replace(probe, layers=tuple(replace(layer, live=layer.index in chosen) for layer in probe.layers))


def _called(name: str, probe: Probe) -> list[int]:
    found = [x.index for x in probe.layers if x.name == name or x.name.startswith(f"{name}.")]
    if not found:
        names = list(dict.fromkeys(layer.name for layer in probe.layers))
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names[:10])}"
        raise ConfigError(f"passes.layers: no dropout is called '{name}'; {hint}")
    return found
