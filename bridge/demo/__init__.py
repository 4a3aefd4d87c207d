"""`eyvan demo`: a whole stage on this machine. ``run.add_arguments`` and ``run.run_demo`` are its two ends."""
