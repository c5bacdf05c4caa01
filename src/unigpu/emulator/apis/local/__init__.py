"""The local provider's own API."""
