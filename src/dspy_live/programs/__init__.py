"""The only folder that imports dspy: programs, their LM, their streams."""
