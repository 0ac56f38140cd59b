"""Training: phases, objectives, runs, export. All but ``phases`` needs the ``train`` extra."""
