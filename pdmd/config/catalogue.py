"""Names that the configuration knows: kinds of models, networks of metrics."""

PRETRAINED = "pretrained"  # kind of model: a released one, whose weights lie in a folder
TRANSFORMERS = ("qwen", "wan", PRETRAINED)  # kinds of model that read text, and hold one seed each
LEAST = 8  # samples of a prompt, below which the diversity of prompted ones is not measured

SMALL = "small"  # CLIP that a rule trains
# Networks that metrics know by name; all else is a file, or for features a folder or a hub name.
FLOWS = ("C_T_V1", "C_T_V2", "C_T_SKHT_V1", "C_T_SKHT_V2", "C_T_SKHT_K_V1", "C_T_SKHT_K_V2")
NETWORKS = {
    "features": ("lite0",),
    "flow": ("opencv", *FLOWS, "DEFAULT"),
    "clip": (
        *("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"),
        *("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"),
    ),
}
