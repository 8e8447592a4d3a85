"""Reports people sign and files machines read, made from a finished run."""
