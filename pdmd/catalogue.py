"""The tables and figures of each kind of scenario, by name."""

PROMPTED = ("emoji", "moving")  # kinds of data that are pictures or clips with prompts
LATENT = ("digits", *PROMPTED)  # those that train on precomputed latents
TRANSFORMERS = ("qwen", "wan")  # kinds of model that read text, and hold one seed each

TABLES = {
    "atoms": ["velocity", "runs"],
    "grid": ["modes", "diversity", "equal_fidelity", "exits", "boundary", "runs"],
    "digits": ["diversity", "modes", "equal_fidelity", "exits", "runs"],
    "emoji": [
        *("diversity", "modes", "fidelity", "recovered", "equal_fidelity", "exits", "experts"),
        "runs",
    ],
    "moving": [
        *("motion", "diversity", "fidelity", "recovered", "equal_fidelity", "exits", "experts"),
        "runs",
    ],
}
FIGURES = {
    "atoms": ["trajectories", "velocity_error"],
    "grid": ["samples", "frontier", "modes", "training"],
    "digits": ["samples", "frontier", "diversity", "training"],
    "emoji": ["samples", "frontier", "diversity", "experts", "training"],
    "moving": ["strips", "motion", "frontier", "diversity", "experts", "training"],
}

# What the samples of a kind of data must be many enough for.
PROMPTS = {"digits": 10, "emoji": 20, "moving": 120}  # that samples of record are drawn for
LEAST = 8  # samples of a prompt, below which the diversity of prompted ones is not measured
FIDELITY = {"grid": "inliers", "digits": "density", "emoji": "density", "moving": "density"}

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
