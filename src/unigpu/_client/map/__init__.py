"""`map`: many calls of one deployment, a window at a time."""
