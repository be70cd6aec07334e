"""Published corpora that LISA-GLEE learns from."""
