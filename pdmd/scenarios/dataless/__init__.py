"""Released models, distilled with prompts alone."""
