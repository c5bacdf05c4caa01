"""The emulator: one engine, and each platform's API over it.

The same engine, with real worker processes, is what the local provider runs on (`supervisor`).
"""
