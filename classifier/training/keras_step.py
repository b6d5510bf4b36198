"""The training step in Keras, on one device or shared out by a `tf.distribute.Strategy`."""
from typing import Callable

from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.training.loop import Backend


class KerasStep(Backend):
    """Network, EMA of its weights, Adam, one training step and the validation.

    build: a function that gives a new `tf_keras.Model`; training starts from its weights. losses:
    a function of true qualities (n,) and output that gives loss and absolute quality error,
    float32 (n,) each. strategy: a `tf.distribute.Strategy`; each of its replicas takes an equal
    part of every batch (InputError if there is none), and batch normalisation sees the whole of it.
    """

    def __init__(self, build: Callable, losses: Callable, batch_size: int, strategy=None):
        self.tf, keras = import_tensorflow()
        tf = self.tf
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
        self.variables = [*self.network.weights, *self.ema.weights, *self.optimizer._momentums,
                          *self.optimizer._velocities]
        for layer in self.network.submodules if self.replicas > 1 else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized, layer.fused = True, False
        self.sums = tf.Variable([0.0, 0.0], dtype=tf.float64)
        # AutoGraph would look for Python's branches and loops in them, for seconds.
        self._update = tf.function(self._update, autograph=False)
        self._validation_sums = tf.function(
            self._validation_sums, autograph=False, input_signature=[
                tf.TensorSpec((None, *self.ema.input_shape[1:]), tf.uint8),
                tf.TensorSpec((None,), tf.uint8)])
        self.start(self.network.get_weights())

    def step(self, batch, rate, decay):
        self.optimizer.learning_rate = rate
        self._update(*batch, self.tf.constant(1 - decay, self.tf.float32))

    def _update(self, x, quality, ema_share):
        tf = self.tf
        parts = self.strategy.run(self._replica_step, (x, quality))
        # BN statistics are averaged too: Keras keeps them over some 10 batches only.
        for mean, weight in zip(self.ema.weights, self.network.weights):
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
            loss, error = self.losses(quality, self.network(tf.cast(x, tf.float32), training=True))
            loss = tf.reduce_mean(loss) / self.replicas
        weights = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return tf.stack([loss, tf.reduce_mean(error) / self.replicas])

    def take_sums(self):
        sums = self.sums.numpy()
        self.sums.assign([0.0, 0.0])
        return sums

    def validate(self, source, batch_size, weights=None):
        kept = self.ema.get_weights()
        if weights:
            self.ema.set_weights(weights)
        sums = sum(self._validation_sums(x, y).numpy() for x, y in source.in_order(batch_size))
        self.ema.set_weights(kept)
        return sums / len(source)

    def _validation_sums(self, x, quality):
        tf = self.tf
        loss, error = self.losses(quality, self.ema(tf.cast(x, tf.float32), training=False))
        return tf.stack([tf.reduce_sum(loss), tf.reduce_sum(error)])

    def weights(self):
        return self.ema.get_weights()

    def start(self, arrays):
        self.network.set_weights(arrays)
        self.ema.set_weights(arrays)

    def state(self):
        return [variable.numpy() for variable in self.variables]

    def restore(self, arrays, step):
        for variable, array in zip(self.variables, arrays, strict=True):
            variable.assign(array)
        self.optimizer.iterations.assign(step)

    def of_all_workers(self, *numbers):
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
