"""From an LM's text to named fields: the predictor that is answering, and the fields in its text."""
