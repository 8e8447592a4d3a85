"""Captioners, summarizers, concept images and encoders; heavy libraries are imported when one is used."""
