"""The latent space of Stable Diffusion 1.x: pretrained parts and small networks around them."""
