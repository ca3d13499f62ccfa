"""Several adapters on one transformer, each for its own noise levels; a copy lies in every export.

It needs nothing of pdmd.
"""

from __future__ import annotations

from typing import Any


def attach_phase_switch(transformer: Any, adapters: list[tuple[str, float]]) -> Any:
    """Have a transformer of diffusers change its adapter with the noise level that it is called at.

    Args:
        adapters: (name, lowest noise level in 0..1), from high noise to low; the last one's is 0.
    Returns:
        a handle; its remove() ends it.
    """
    active: list[str] = []

    def before(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        value = float(options["timestep"].max())
        level = value / 1000 if value > 1 else value  # Wan's pipeline says 1000 t, Qwen's says t
        name = next(name for name, lowest in adapters if level >= lowest)
        if active != [name]:
            module.set_adapter(name)
            active[:] = [name]

    return transformer.register_forward_pre_hook(before, with_kwargs=True)
