"""Training: one loop, with a Keras and a PyTorch backend, on HDF5 files or on photos."""
