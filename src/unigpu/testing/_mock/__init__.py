"""What `unigpu_mock` is made of: whole platforms in a test's memory."""
