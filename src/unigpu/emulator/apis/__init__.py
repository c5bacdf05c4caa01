"""Emulated APIs: each platform's wire protocol over the engine.

An emulated API only translates, and never imports a driver: a mistake that both shared would confirm itself.
"""
