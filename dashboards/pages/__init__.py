"""One file a page; each has ``show()`` and keeps its state in the URL."""
