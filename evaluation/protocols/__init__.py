"""Published evaluations on their own layouts, run with the pipelines of this package; README.md lists them."""
