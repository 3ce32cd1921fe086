"""The usage of the process: its account with meters and observers, prices, and totals."""
