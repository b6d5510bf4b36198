"""What a user's input can be wrong about: one class, shared by every room."""


class InputError(Exception):
    """Something the user gave cannot be used; the message says what, and what to do."""


class NoModel(InputError):
    """No usable model file, or no LiteRT to run it; TensorFlow may run the checkpoint instead."""
