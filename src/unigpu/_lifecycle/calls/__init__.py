"""The calls of a deployment: jobs, streams, requests, and the wait for a worker."""
