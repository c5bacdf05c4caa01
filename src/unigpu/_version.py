"""The version of this package: read here by the build, by `unigpu` and by the client."""

__version__ = "0.1.0"
