"""The bridge to NNI's experiment manager: the trial command, the tuner, and running an nnictl config."""
