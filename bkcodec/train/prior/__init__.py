"""The context prior while it is trained, and its way into integers and back."""
