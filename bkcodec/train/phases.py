"""The phases of training: what kinds there are (docs/training.md says what each does)."""

PHASES = ("joint", "quantise", "prior", "decoder", "texture", "denoiser", "vae")
JOINT = ("joint", "quantise")  # train everything
KEEPS_FILES = ("decoder", "texture", "denoiser", "vae")  # change nothing that files depend on
OWN_SPACE = ("quantise", "decoder")  # not for the latent space of Stable Diffusion
