"""From corpora to checkpoints: one folder a system."""
