"""Vast.ai's APIs."""
