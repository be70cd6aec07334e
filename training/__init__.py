"""From corpora to checkpoints: one folder per system."""
