"""A small cloud: one engine, and each platform's wire protocol as a face over it."""
