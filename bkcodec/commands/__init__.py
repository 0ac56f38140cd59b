"""The commands of ``bkcodec``: everything that knows click. One file a command."""
