"""Training loops, their checkpoints and cost, over one process or several."""
