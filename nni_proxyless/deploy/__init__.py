"""From a found network to a file on a device: retraining, export and description of networks."""
