"""The input of commands: words of the command line and rows of files."""
