"""Figures of record."""


def draw_figures(configs):
    raise NotImplementedError
