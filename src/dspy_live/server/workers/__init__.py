"""What makes the worker processes of a server one server: they answer each other over Unix sockets in one folder."""
