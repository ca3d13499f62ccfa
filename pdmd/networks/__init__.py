"""Frozen networks of other people: features, distances and text encodings."""
