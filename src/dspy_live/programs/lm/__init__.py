"""The seam to DSPy's language models: the LM, its engine and its endpoints."""
