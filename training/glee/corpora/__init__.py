"""From published data sets on disk to one schema (`schema.py`): one reader a family of layouts."""
