"""From a file to tensors and back: one folder per system."""
