"""DSPy's stock predictor with its stock adapter, from a plan that is made once for each signature."""
