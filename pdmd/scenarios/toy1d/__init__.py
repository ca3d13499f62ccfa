"""Two atoms on a line."""
