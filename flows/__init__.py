"""What runs after what, and when; the command line."""

import os

# Threads that wait for one another spin first. Where another process takes one of their cores, the default of
# milliseconds makes two threads several times slower than one; three thousand turns cost little where cores are free.
# OpenMP reads this once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# A stage shows its own progress; libraries' bars would tear it. Read when tqdm is first imported.
os.environ.setdefault("TQDM_DISABLE", "1")
