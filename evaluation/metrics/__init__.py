"""`evaluate.Metric` modules; each folder loads by its path, without network."""
