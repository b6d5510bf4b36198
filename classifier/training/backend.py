"""What the training loop needs of a framework; Keras and PyTorch do the rest."""
import numpy as np

from classifier.patches import Patches


class Backend:
    """A network, the EMA of its weights, Adam and the training step.

    A framework sets the attributes and defines the methods that are listed here.

    Attributes
    ----------
    weight_variables, ema_variables : list of variables
        The network's weights and their EMA, in the order of Keras' `get_weights()`.
    moments, step_counts : list of variables
        Adam's first moments, then its second ones; the numbers of steps it has made.
    sums : variable, shape (2,), float64
        What the steps have added, on the device.
    look_every : int
        Steps between two looks at the sums.
    is_chief : bool
        Whether this process validates and writes the files.

    Methods
    -------
    step(batch, rate, decay)
        One update; adds the batch's mean loss and mean absolute quality error to `sums`.
    validation_sums(x, quality)
        The sums of the EMA's losses and of its absolute quality errors over a batch.
    read(variables), write(variables, arrays)
        To and from NumPy arrays in the layout of Keras.
    """
    look_every = 1
    is_chief = True

    def of_all_workers(self, *numbers: float) -> list[tuple]:
        """The numbers with which every worker calls this, a tuple for each."""
        return [numbers]

    def weights(self) -> list[np.ndarray]:
        """The EMA."""
        return self.read(self.ema_variables)

    def start(self, arrays: list[np.ndarray]) -> None:
        """Start from these weights."""
        self.write(self.weight_variables, arrays)
        self.write(self.ema_variables, arrays)

    def state(self) -> list[np.ndarray]:
        """Weights, EMA and moments, in one list; collective: for all workers."""
        return self.read([*self.weight_variables, *self.ema_variables, *self.moments])

    def restore(self, arrays: list[np.ndarray], step: int) -> None:
        """Continue from a `state` that was reached after that many steps."""
        self.write([*self.weight_variables, *self.ema_variables, *self.moments], arrays)
        self.write(self.step_counts, len(self.step_counts) * [step])

    def take_sums(self, restart: bool = True) -> np.ndarray:
        """The sums of the steps so far; with `restart` they begin again at 0."""
        sums, = self.read([self.sums])
        if restart:
            self.write([self.sums], [np.zeros(2)])
        return sums

    def validate(self, source: Patches, batch_size: int,
                 weights: list[np.ndarray] | None = None) -> np.ndarray:
        """Mean loss and mean absolute quality error of the EMA, or of those weights."""
        ema = self.weights()
        self.write(self.ema_variables, weights or ema)
        sums = sum(np.array(self.validation_sums(*batch)) for batch in source.in_order(batch_size))
        self.write(self.ema_variables, ema)
        return sums / len(source)
