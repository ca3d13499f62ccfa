"""What models are trained on: samples, prompts, and precomputed latents."""
