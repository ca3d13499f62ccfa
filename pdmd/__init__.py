"""Phased DMD, reproducible: few-step distillation by score matching within subintervals."""

__version__ = "0.1.0"
