"""Figures of a user's own pictures or clips: those of samples of which prompts alone are known."""

from __future__ import annotations

from pdmd.report.figures.training import training as training
from pdmd.scenarios.dataless.figures import samples as samples
