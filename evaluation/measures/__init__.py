"""The published measures: from what was found and what is true to a figure, without models or files."""
