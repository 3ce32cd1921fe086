"""What the command line, the server and embeddings share: finding a program and its LM."""
