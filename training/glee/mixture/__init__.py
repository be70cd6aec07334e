"""Training on a mixture of corpora: the order of their rows, queries about them, and the published stages."""
