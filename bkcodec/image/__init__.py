"""Image files to arrays and back, with metadata, orientation and alpha."""
