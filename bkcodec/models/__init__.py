"""The networks in PyTorch, and what is around them: sizes, denoising, LPIPS."""
