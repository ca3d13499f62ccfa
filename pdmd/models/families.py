"""The released models that are distilled: what their folders hold, and how their pipelines sample.

Sources: the diffusers pipelines of the classes named here (0.42), and the configurations that lie
with the released weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.errors import UserError

if TYPE_CHECKING:
    import torch

    from pdmd.models.base import Rescale, TextNetwork, VelocityNetwork


@dataclass(frozen=True)
class Family:
    """A model as it was released.

    Attributes:
        kind: of velocity, as `model.kind` names it; hub: where its weights are.
        pipeline, transformer: diffusers' classes; experts: how many transformers there are.
        boundary: the noise level at and above which the first of two experts is used.
        image_channels: that image-to-video concatenates to x_t (4 of a mask, 16 of latents).
        text_length: rows that text is padded to, None where padding is not read.
        rescaled: whether the pipeline gives guided tokens the conditional norm, and shifts the
            teacher's step grid by the size.
        parameters: of one transformer, in billions; vae: diffusers' class; licence: of the weights,
            as the hub names it.
        architecture: of one transformer, as in its released config.json.
    """

    kind: str
    hub: str
    pipeline: str
    transformer: str
    parameters: float
    vae: str
    experts: int = 1
    boundary: float | None = None
    image_channels: int = 0
    text_length: int | None = None
    rescaled: bool = False
    licence: str = "apache-2.0"
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int | None:
        """Frames of a sample, 1 of pictures; None where clips have any number."""
        return 1 if self.kind == "qwen" else None

    @property
    def transformers(self) -> tuple[str, ...]:
        """The folders of the experts, from high noise to low."""
        return ("transformer", "transformer_2")[: self.experts]

    @property
    def rescale(self) -> Rescale | None:
        """What the pipeline does to a guided velocity."""
        from pdmd.models.qwen import rescale_guidance

        return rescale_guidance if self.rescaled else None


QWEN: Mapping[str, Any] = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "axes_dims_rope": (16, 56, 56),
}
WAN: Mapping[str, Any] = {  # of 14 billion weights
    "patch_size": (1, 2, 2),
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 13824,
    "num_layers": 40,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
}


def _wan(hub: str, differs: Mapping[str, Any] | None = None, **more: Any) -> Family:
    more = {"pipeline": "WanPipeline", "text_length": 512, "vae": "AutoencoderKLWan", **more}
    more["architecture"] = {**WAN, **(differs or {})}
    return Family(kind="wan", hub=hub, transformer="WanTransformer3DModel", **more)


FAMILIES = {
    "qwen-image": Family(
        kind="qwen",
        hub="Qwen/Qwen-Image",
        pipeline="QwenImagePipeline",
        transformer="QwenImageTransformer2DModel",
        parameters=20.4,
        vae="AutoencoderKLQwenImage",
        rescaled=True,
        architecture=QWEN,
    ),
    "wan2.1-t2v-14b": _wan("Wan-AI/Wan2.1-T2V-14B-Diffusers", parameters=14.3),
    "wan2.1-t2v-1.3b": _wan(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
        parameters=1.42,
    ),
    "wan2.2-t2v-a14b": _wan(
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers", parameters=14.3, experts=2, boundary=0.875
    ),
    "wan2.2-i2v-a14b": _wan(
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        {"in_channels": 36},
        pipeline="WanImageToVideoPipeline",
        parameters=14.3,
        experts=2,
        boundary=0.9,
        image_channels=20,
    ),
}


def load_velocity(
    folder: Path,
    family: Family,
    dtype: torch.dtype,
    boundary: float | None = None,
    experts: Collection[str] = ("high", "low"),
    empty: bool = False,
) -> VelocityNetwork:
    """The frozen velocity of a folder that `source.check_folder` has passed.

    Args:
        boundary: between two experts; the family's own where it is None.
        experts: of two, those that are loaded; a call of another is an error;
        empty: whether it has no weights yet, see `streamed`.
    """
    return assembled(
        family, lambda name: _load(folder / name, family, dtype, empty), boundary, experts
    )


def assembled(
    family: Family,
    make: Callable[[str], TextNetwork],
    boundary: float | None = None,
    experts: Collection[str] = ("high", "low"),
) -> VelocityNetwork:
    """A family's velocity out of its transformers.

    Args:
        make: of a transformer by the name of its folder; boundary, experts: see load_velocity.
    """
    from pdmd.models.experts import Absent, Experts

    if family.experts == 1:
        return make(family.transformers[0])
    boundary = family.boundary if boundary is None else boundary
    assert boundary is not None, "two experts have a boundary"
    high, low = (
        make(name) if side in experts else Absent()
        for side, name in zip(("high", "low"), family.transformers, strict=True)
    )
    return Experts(high, low, boundary)


def _load(folder: Path, family: Family, dtype: torch.dtype, empty: bool) -> TextNetwork:
    from pdmd.models.streamed import empty_transformer

    if empty:
        return velocity_of(family, empty_transformer(folder, family.transformer, dtype))
    return velocity_of(family, _loaded(folder, family, dtype).eval().requires_grad_(False))


def velocity_of(family: Family, net: Any) -> TextNetwork:
    """A family's transformer as a velocity."""
    from pdmd.models.qwen import QwenVelocity
    from pdmd.models.wan import WanVelocity

    velocity = QwenVelocity if family.kind == "qwen" else WanVelocity
    return velocity(net)


def _loaded(folder: Path, family: Family, dtype: torch.dtype) -> Any:
    import diffusers

    from pdmd.files.storage import shown

    try:
        net = getattr(diffusers, family.transformer).from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: {shown(error)}: expected a {family.transformer}") from None
    check_finite(net, folder)
    return net


def check_finite(net: Any, folder: Path) -> None:
    """Raise UserError for weights that are no numbers."""
    from pdmd.models.source import file_of
    from pdmd.models.streamed import is_finite

    for name, p in net.named_parameters():
        if not is_finite(p.detach()):
            raise UserError(f"{file_of(folder, name)}: {name}: not finite: expected numbers")


def qwen_shift(tokens: int) -> float:
    """The shift of Qwen-Image's step grid at a resolution: exp(mu), mu linear in the tokens.

    Its scheduler calls that dynamic and exponential; exp(mu) / (exp(mu) + 1 / u - 1) is
    `shift_time` with the shift exp(mu); mu is .5 at 256 tokens and .9 at 8192.

    Args:
        tokens: patches of 16 x 16 pixels.
    """
    slope = (0.9 - 0.5) / (8192 - 256)
    return math.exp(0.5 + slope * (tokens - 256))


def stretched(times: Sequence[float], last: float) -> tuple[float, ...]:
    """A step grid stretched from 1 so that its last time before 0 is `last` (`shift_terminal`)."""
    *inner, end = times
    scale = (1 - inner[-1]) / (1 - last)
    return (*(1 - (1 - t) / scale for t in inner), end)
