"""How platforms choose the number of workers, as pure functions."""
