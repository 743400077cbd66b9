"""How a model is started: on which device, from which weights."""

train = dict(
    device="",  # "" is the GPU if there is one, else the CPU
    init_checkpoint="",  # path of a checkpoint, or name of known weights; "" leaves the weights random
    load_options=dict(),  # keywords of load_checkpoint: allow_missing, stem_adapt, check_preprocessing ...
)
