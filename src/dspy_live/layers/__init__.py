"""One behaviour per file; each turns a service into a service. ``docs/guides/layers.md`` has their order."""
