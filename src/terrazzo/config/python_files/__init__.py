"""The safe evaluator of `.py` configs."""
