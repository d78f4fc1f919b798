"""From a found network to a file on a device."""
