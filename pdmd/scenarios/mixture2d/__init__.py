"""A grid of Gaussians in the plane."""
