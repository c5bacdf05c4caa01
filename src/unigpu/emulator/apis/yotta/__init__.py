"""Yotta Labs' APIs."""
