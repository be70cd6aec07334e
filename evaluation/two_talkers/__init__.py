"""Two talkers: people side by side whose voices are mixed, and a recogniser that is told whom to read."""
