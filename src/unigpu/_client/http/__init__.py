"""Calls of an http deployment: requests, streams, and the transport for openai."""
