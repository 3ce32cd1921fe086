"""From an LM's text to named fields: which predictor is answering, and what of its text is which field."""
