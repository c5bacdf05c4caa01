"""HTTP: connections, requests, replies. Nothing outside imports an HTTP library."""
