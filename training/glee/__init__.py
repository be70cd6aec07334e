"""Training and publishing of GLEE."""
