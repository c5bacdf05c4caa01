"""The way to the outside: what may be sent, how it is sent, and when it is sent again."""
