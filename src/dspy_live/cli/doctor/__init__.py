"""What ``dspy-live doctor`` looks at; each file yields findings of one kind."""
