"""Whether and when a request is sent again: retries, the breaker, and rates."""
