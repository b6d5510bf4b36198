"""What the training loop needs of a framework; Keras and PyTorch do the rest."""
import numpy as np


class Backend:
    """A network, the EMA of its weights, Adam and the training step.

    A framework sets `weight_variables`, `ema_variables`, `moments` (Adam's first, then second),
    `step_counts` (Adam's) and `sums` (of what a step adds, on the device), and defines

    step(batch, rate, decay) : one update; adds the batch's mean loss and mean absolute quality
        error to `sums`
    validation_sums(x, quality) : losses and absolute quality errors of the EMA, summed
    read(variables), write(variables, arrays) : NumPy arrays in the order and layout of Keras
    """
    look_every = 1    # steps between two looks at the sums
    is_chief = True   # whether this process validates and writes the files

    def of_all_workers(self, *numbers):
        """The numbers with which every worker calls this, a tuple for each."""
        return [numbers]

    def weights(self):
        """The EMA."""
        return self.read(self.ema_variables)

    def start(self, arrays):
        """Start from these weights."""
        self.write(self.weight_variables, arrays)
        self.write(self.ema_variables, arrays)

    def state(self):
        """Weights, EMA and moments, in one list; collective: for all workers."""
        return self.read([*self.weight_variables, *self.ema_variables, *self.moments])

    def restore(self, arrays, step):
        """Continue from a `state` that was reached after that many steps."""
        self.write([*self.weight_variables, *self.ema_variables, *self.moments], arrays)
        self.write(self.step_counts, len(self.step_counts) * [step])

    def take_sums(self, restart=True):
        """The sums of the steps so far; with `restart` they begin again at 0."""
        sums, = self.read([self.sums])
        if restart:
            self.write([self.sums], [np.zeros(2)])
        return sums

    def validate(self, source, batch_size, weights=None):
        """Mean loss and mean absolute quality error of the EMA, or of those weights."""
        ema = self.weights()
        self.write(self.ema_variables, weights or ema)
        sums = sum(np.array(self.validation_sums(*batch)) for batch in source.in_order(batch_size))
        self.write(self.ema_variables, ema)
        return sums / len(source)
