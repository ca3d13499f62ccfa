"""What jobs ask of a cluster, how far they are, and the demo."""
