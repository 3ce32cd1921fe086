"""API keys: what each may do and use, where they are kept, and how their limits are held."""
