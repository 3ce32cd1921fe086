"""``--on ray``: the server's replicas on Ray Serve, and a batch's workers on Ray Data."""
