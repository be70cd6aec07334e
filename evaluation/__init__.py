"""Error rates, conditions and tables, through the public API only."""
