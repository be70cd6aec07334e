"""Answering requests: the handler of published checkpoints, and the server of `lookhear serve`."""
