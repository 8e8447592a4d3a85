"""Describe any unit of any vision network in words, and verify what is said (Describe-and-Dissect, Bai et al. 2025)."""
