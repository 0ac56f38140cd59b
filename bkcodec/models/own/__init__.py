"""The networks of our own latent space."""
