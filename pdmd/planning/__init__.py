"""What training takes, before it runs: memory, calculations, time."""
