"""Pages of HTML with everything in them: for any browser, without a network."""
