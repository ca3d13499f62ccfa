"""The tables and figures of each kind of scenario, by name."""

TABLES = {
    "atoms": ["velocity", "runs"],
    "grid": ["modes", "diversity", "equal_fidelity", "exits", "boundary", "runs"],
    "digits": ["diversity", "modes", "equal_fidelity", "exits", "runs"],
}
FIGURES = {
    "atoms": ["trajectories", "velocity_error"],
    "grid": ["samples", "frontier", "modes", "training"],
    "digits": ["samples", "frontier", "diversity", "training"],
}
