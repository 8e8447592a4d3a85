"""Screens over a finished run: what the network looks at, where, and what people say about it."""
