"""Published evaluations, run on their own layouts with the pipeline `object-perception`; README.md lists them."""
