"""A user's own pictures or clips, with their prompts."""
