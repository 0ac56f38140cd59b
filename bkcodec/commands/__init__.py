"""All that knows click: one file for each command of ``bkcodec``, and what they share."""
