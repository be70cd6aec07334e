"""Training on a mixture of corpora: which rows come in which order, what is asked about them, and the published stages."""
