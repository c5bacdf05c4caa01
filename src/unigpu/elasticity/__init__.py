"""What platforms can do, as sourced facts; what of a spec they cannot meet; what it costs."""
