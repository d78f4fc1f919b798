"""The bridge to NNI's experiment manager: trials, and running an nnictl config."""
