"""Handwritten digits, by class."""
