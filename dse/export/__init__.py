"""The chosen assignment as a model that other programs run."""
