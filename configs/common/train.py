"""How a model is started: on which device, from which weights."""

train = dict(
    device="",  # "" is the GPU if there is one, else the CPU
    init_checkpoint="",  # path of a checkpoint; "" leaves the weights random
)
