"""HTTP below the routes: requests, routing, access, heartbeats, the listening process."""
