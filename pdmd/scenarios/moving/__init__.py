"""Clips of moving sprites with prompts."""
