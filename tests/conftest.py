"""What holds for every test: small images, so one thread each; the workers share the cores."""

import torch

# More threads would wait for each other longer than they work.
torch.set_num_threads(1)
