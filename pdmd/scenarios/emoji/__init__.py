"""Emoji with prompts."""
