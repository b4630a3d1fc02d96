"""One Trainer for every modality: a Task says what is learnt, the Trainer how it is run."""
