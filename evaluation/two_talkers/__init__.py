"""Two talkers: people side by side whose voices are mixed, and a recogniser that is given the speaker to read."""
