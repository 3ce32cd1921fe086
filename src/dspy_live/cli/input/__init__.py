"""What commands read: inputs on the command line and rows of files."""
