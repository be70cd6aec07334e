"""The Open ASR Leaderboard's terms: its data sets, its texts, its measure of speed, its result files."""
