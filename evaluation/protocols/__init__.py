"""Published evaluations on their own layouts, run with the pipelines that see and that answer; README.md lists them."""
