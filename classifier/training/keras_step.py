"""The training step in Keras, on one device or shared out by a `tf.distribute.Strategy`."""
from collections.abc import Callable
from typing import Any

import numpy as np

from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.training.backend import Backend


class KerasStep(Backend):
    """The backend in Keras.

    Parameters
    ----------
    build : callable
        Gives a new `tf_keras.Model`; training starts from its weights.
    losses : callable
        From true qualities (n,) and the network's output to losses and absolute quality errors,
        float32 (n,) each.
    batch_size : int
    strategy : tf.distribute.Strategy, optional
        Each of its replicas takes an equal part of every batch, and batch normalisation sees the
        whole of it.

    Raises
    ------
    InputError
        A batch cannot be shared out equally among the replicas.
    """

    def __init__(self, build: Callable, losses: Callable, batch_size: int,
                 strategy: Any = None):
        self.tf, keras = tf, keras = import_tensorflow()
        self.strategy = strategy or tf.distribute.get_strategy()
        self.losses, self.replicas = losses, self.strategy.num_replicas_in_sync
        if batch_size % self.replicas:
            raise InputError(f'--batch_size {batch_size} cannot be shared out among '
                             f'{self.replicas} replicas; choose a multiple of {self.replicas}')
        self.is_chief = self.strategy.extended.should_checkpoint
        self.ema = build()  # outside the strategy: every process has one of its own
        with self.strategy.scope():
            self.network = build()
            self.optimizer = keras.optimizers.Adam(0.0)
            self.optimizer.build(self.network.trainable_variables)
        for layer in self.network.submodules if self.replicas > 1 else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized, layer.fused = True, False
        self.weight_variables, self.ema_variables = self.network.weights, self.ema.weights
        self.moments = self.optimizer._momentums + self.optimizer._velocities
        self.step_counts = [self.optimizer.iterations]
        self.sums = tf.Variable([0.0, 0.0], dtype=tf.float64)
        # AutoGraph would look for Python's branches and loops in them, for seconds.
        self._update = tf.function(self._update, autograph=False)
        self.validation_sums = tf.function(
            self.validation_sums, autograph=False, input_signature=[
                tf.TensorSpec((None, *self.ema.input_shape[1:]), tf.uint8),
                tf.TensorSpec((None,), tf.uint8)])
        self.start(self.network.get_weights())

    def read(self, variables: list) -> list[np.ndarray]:
        return [variable.numpy() for variable in variables]

    def write(self, variables: list, arrays: list[np.ndarray]) -> None:
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def step(self, batch: tuple[np.ndarray, np.ndarray], rate: float, decay: float) -> None:
        self.optimizer.learning_rate = rate
        self._update(*batch, self.tf.constant(1 - decay, self.tf.float32))

    def _update(self, x, quality, ema_share):
        tf = self.tf
        parts = self.strategy.run(self._replica_step, (x, quality))
        # BN statistics are averaged too: Keras keeps them over some 10 batches only.
        for mean, weight in zip(self.ema_variables, self.weight_variables):
            own, *_ = self.strategy.experimental_local_results(weight)
            mean.assign_add(ema_share * (own - mean))
        means = self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)
        self.sums.assign_add(tf.cast(means, tf.float64))

    def _replica_step(self, x, quality):
        """One replica's part of the batch, of the update, and of the two means."""
        tf = self.tf
        if self.replicas > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            x, quality = (tf.reshape(v, (self.replicas, -1, *v.shape[1:]))[replica]
                          for v in (x, quality))
        with tf.GradientTape() as tape:
            found = self._losses_and_errors(self.network, x, quality, training=True)
            loss, error = tf.unstack(tf.reduce_mean(found, axis=1) / self.replicas)
        weights = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return tf.stack([loss, error])

    def validation_sums(self, x: np.ndarray, quality: np.ndarray) -> Any:
        found = self._losses_and_errors(self.ema, x, quality, training=False)
        return self.tf.reduce_sum(found, axis=1)

    def _losses_and_errors(self, network, x, quality, training):
        output = network(self.tf.cast(x, self.tf.float32), training=training)
        return self.tf.stack(self.losses(quality, output))

    def of_all_workers(self, *numbers: float) -> list[tuple]:
        tf = self.tf
        if not isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return [numbers]
        own = self.strategy.run(tf.constant, ([numbers], tf.float64))
        return [tuple(row) for row in self.strategy.gather(own, axis=0).numpy()]

    def __str__(self):
        lines = []
        self.network.summary(print_fn=lines.append)
        devices = [device.name for device in self.tf.config.list_logical_devices()]
        return '\n'.join([*lines, f'{self.replicas} replicas, devices {devices}'])
