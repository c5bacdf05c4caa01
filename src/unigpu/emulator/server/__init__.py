"""The engine on real time, as an ASGI app."""
