"""Audit land-cover networks: what every neuron looks for, where it fires, and what is spurious."""
