"""Real worker processes of this machine."""
