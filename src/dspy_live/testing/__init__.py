"""For tests of services, channels and stores, ours and yours. Nothing in the product imports it."""
