"""Faces: each platform's wire protocol over the engine. A face only translates, and never imports a driver."""
