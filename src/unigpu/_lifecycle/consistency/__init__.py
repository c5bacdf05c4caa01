"""Lists that show late what was created or deleted: what counts, what is absent, and the checks that follow."""
