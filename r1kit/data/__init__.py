"""Data sets: sources, loaders, decontamination."""
