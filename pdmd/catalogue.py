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
