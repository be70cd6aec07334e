"""Training of the audio-visual speech recogniser."""
