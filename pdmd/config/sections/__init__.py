"""Every section of the configuration: its keys, their types, ranges and meanings.

The `data` section of a kind stands in the kind's room. What a run starts from stands in
config/config.yaml alone.
"""

from pdmd.config.sections.data import (
    Codec,
    Data,
    PromptedData,
    ReleasedData,
    Size,
    latent_size,
    parse_size,
    tokens_of,
)
from pdmd.config.sections.distill import Average, Balance, Distill, Fake, Parallel
from pdmd.config.sections.evaluate import ALONG, Classifier, Evaluate, Networks, Tables
from pdmd.config.sections.limits import PATH, ROWS, SEED, SIZE, UPDATES
from pdmd.config.sections.model import AUTO, Attention, Ends, Fit, Grid, Measure, Model, Teacher
from pdmd.config.sections.run import Clip, Hardware, Listed, Run, Save, Settings
from pdmd.config.sections.student import Bank, Lora, Renoise, Student

__all__ = [
    "ALONG",
    "AUTO",
    "PATH",
    "ROWS",
    "SEED",
    "SIZE",
    "UPDATES",
    "Attention",
    "Average",
    "Balance",
    "Bank",
    "Classifier",
    "Clip",
    "Codec",
    "Data",
    "Distill",
    "Ends",
    "Evaluate",
    "Fake",
    "Fit",
    "Grid",
    "Hardware",
    "Listed",
    "Lora",
    "Measure",
    "Model",
    "Networks",
    "Parallel",
    "PromptedData",
    "ReleasedData",
    "Renoise",
    "Run",
    "Save",
    "Settings",
    "Size",
    "Student",
    "Tables",
    "Teacher",
    "latent_size",
    "parse_size",
    "tokens_of",
]
