"""Simulated workers on virtual time, in memory."""
