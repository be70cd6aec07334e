"""Training LISA-GLEE."""
