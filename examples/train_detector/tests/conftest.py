"""One thread for each test, as the workers share the cores."""

import torch

torch.set_num_threads(1)
