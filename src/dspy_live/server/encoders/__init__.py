"""Events to bytes, one file per wire. Each matches on the closed union and ends in ``assert_never``."""
